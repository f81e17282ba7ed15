"""A W&B server as far as uploads need one: wandb's own client talks to it, and it keeps what it was sent."""

import gzip
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer

PROJECT = {"id": "p", "name": "lottalora", "entity": {"id": "e", "name": "someone"}}


@contextmanager
def server():
    """Gives its address, run id → what was sent of it, and all that came."""
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    serving.runs, serving.raw = {}, []
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{serving.server_port}", serving.runs, serving.raw
    finally:
        serving.shutdown()
        serving.server_close()


class Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        sent = self.body()
        if self.path.endswith("/file_stream"):
            return self.keep(json.loads(sent))
        if not self.path.startswith("/graphql"):
            return self.reply({})
        asked = json.loads(sent)
        name = asked.get("operationName") or asked["query"]
        variables = asked.get("variables") or {}
        for word, answer in ANSWERS.items():
            if word in name:
                return self.reply({"data": answer(self, variables)})
        return self.reply({"data": {}})

    def keep(self, sent):
        """file_stream: lines of history and so on."""
        run = self.server.runs[self.path.split("/")[4]]
        for name, part in sent.get("files", {}).items():
            run.setdefault(name, []).extend(json.loads(line) for line in part["content"])
        if sent.get("complete"):
            run["state"] = "finished" if sent.get("exitcode") == 0 else "failed"
        self.reply({"exitcode": None, "limits": {}})

    def upsert(self, variables):
        run = self.server.runs.setdefault(variables["name"], {"upserts": 0, "state": "running"})
        run["upserts"] += 1
        run |= {key: value for key, value in variables.items() if value is not None}
        bucket = {"id": variables["name"], "name": variables["name"], "displayName": "", "config": "{}"}
        return {"upsertBucket": {"bucket": bucket | {"project": PROJECT, "historyLineCount": 0}}}

    def files(self, variables):
        address = f"http://127.0.0.1:{self.server.server_port}/upload/"
        files = [{"name": name, "uploadUrl": address + name} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def list_runs(self, variables):
        wanted = json.loads(variables["filters"])["name"]["$in"]
        found = [{"node": node(name, run)} for name, run in self.server.runs.items() if name in wanted]
        page = {"hasNextPage": False, "endCursor": None}
        runs = {"edges": found, "pageInfo": page, "totalCount": len(found)}
        return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}

    def do_PUT(self):
        self.body()
        self.reply({})

    def do_GET(self):
        self.reply({})

    def body(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        self.server.raw.append(raw)
        return raw

    def reply(self, content):
        raw = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
        pass


def node(name, run):
    return {
        "id": name,
        "name": name,
        "displayName": run.get("displayName"),
        "state": run["state"],
        "projectId": 1,
        "tags": [],
        "createdAt": "2026-01-01T00:00:00",
        "user": {"id": "u", "name": "someone", "username": "someone"},
    }


ANSWERS = {
    "UpsertBucket": Answers.upsert,
    "CreateRunFiles": Answers.files,
    "GetDefaultEntity": lambda *_: {"viewer": {"id": "v", "entity": "someone"}},
    "Runs": Answers.list_runs,
    "upsertView": lambda *_: {"upsertView": {"view": {"id": "v", "name": "nw-abc-v"}, "inserted": True}},
    "Viewer": lambda *_: {"viewer": {"id": "v", "entity": "someone", "username": "someone", "email": ""}},
}
