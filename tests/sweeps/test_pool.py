"""The pool, with real processes and jobs that need no training."""

import os
import signal
import time

from lottalora.sweeps.pool import Job
from lottalora.sweeps.pool import run_all
from lottalora.sweeps.pool import shared_out
from lottalora.sweeps.pool import slots_of


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_is_killed_is_one_failed_job_and_the_others_go_on():
    jobs = [Job(work=kill_self), *[Job(work=lambda: None)] * 3, Job(work=lambda: "a cause")]
    ends = {end.index: end for end in run_all(jobs, [{}, {}])}
    assert ends[0].cause.startswith("the process was killed by SIGKILL")
    assert ends[0].died
    assert [ends[index].cause for index in (1, 2, 3)] == [None] * 3
    assert (ends[4].cause, ends[4].died) == ("a cause", False)


def test_a_process_that_exits_is_a_failed_job():
    (end,) = run_all([Job(work=lambda: os._exit(7))], [{}])
    assert "exit code 7" in end.cause


def test_output_of_a_run_goes_to_its_log(tmp_path, capfd):
    log = tmp_path / "runs" / "one" / "log.txt"
    list(run_all([Job(work=lambda: os.system("echo hello; echo worse >&2") and None, log=log)], [{}]))
    assert sorted(log.read_text().split()) == ["hello", "worse"]
    assert capfd.readouterr().out == ""


def test_as_many_jobs_run_at_once_as_there_are_slots_each_with_its_environment(tmp_path):
    def work():
        (tmp_path / os.environ["SLOT"]).touch()
        time.sleep(0.2)

    begin = time.monotonic()
    list(run_all([Job(work=work)] * 4, [{"SLOT": "a"}, {"SLOT": "b"}]))
    assert 0.4 <= time.monotonic() - begin
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_leaving_the_loop_ends_what_still_runs(tmp_path):
    def work():
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    ends = run_all([Job(work=work), Job(work=lambda: time.sleep(0.5) or "a cause")], [{}, {}])
    next(ends)
    ends.close()
    (pid,) = os.listdir(tmp_path)
    assert not os.path.exists(f"/proc/{pid}")


def test_a_message_longer_than_a_pipe_holds_does_not_stop_the_pool():
    (end,) = run_all([Job(work=lambda: "x" * 300_000)], [{}])
    assert len(end.cause) == 300_000


def test_workers_of_the_command_line_are_the_slots():
    assert slots_of(3, "cpu") == [{}, {}, {}]


def test_each_worker_has_a_gpu_of_its_own_as_long_as_there_are_enough(tmp_path):
    def work():
        device = tmp_path / os.environ["CUDA_VISIBLE_DEVICES"]
        device.touch(exist_ok=False)  # fails if another run has this device now
        time.sleep(0.1)
        device.rename(tmp_path / f"done-{device.name}-{os.getpid()}")

    ends = list(run_all([Job(work=work)] * 6, shared_out(["2", "5"], None)))
    assert [end.cause for end in ends] == [None] * 6
    used = [name.split("-")[1] for name in os.listdir(tmp_path)]
    assert sorted(used) == ["2"] * 3 + ["5"] * 3


def test_more_workers_than_gpus_share_them_in_turn():
    slots = shared_out(["GPU-a", "GPU-b"], 5)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["GPU-a", "GPU-b", "GPU-a", "GPU-b", "GPU-a"]
    assert shared_out(["0", "1"], 1) == [{"CUDA_VISIBLE_DEVICES": "0"}]
