"""Which rows may be averaged, and which may stand in one table.

Nothing is averaged over anything but seeds. Rows share a block only if they share model, size, data and its
fingerprint, sample, recipe with its changes and the settings that these came to, precision, metric and number
of parameters; a line only if they also share mode, rank, α, epochs, schedule, number of trained parameters,
which matrices are kept and frozen, learned weights, and every option of the scaffold. What a run changed of
the scaffold alone, such as α, gives it a line and not a block of its own: the same full training is its
measure.
"""

import json
from collections.abc import Callable
from collections.abc import Iterable

from lottalora.messages import flatten
from lottalora.results.digest import told_of_training
from lottalora.results.rows import Row
from lottalora.results.rows import precision_of
from lottalora.results.schema import chosen

# What the config says of the scaffold and the row has keys of its own for.
OF_THE_ROW = {"scaffold.seed", "scaffold.rank", "scaffold.alpha"}
SCALED = ("beta", "cauchy", "exponential", "gaussian_mixture", "laplace", "uniform")
# Families of which Table 13 was first read otherwise: family → parameter, value of the first reading, and
# whether rows of that reading leave it out. CHANGELOG.md has the readings.
FIRST_READING = {
    **{name: ("scaling", "literal", True) for name in SCALED},
    "truncated_normal": ("clip", "redrawn", True),
    "kaiming_normal": ("a", 0.0, False),
    "sparse_erdos_renyi": ("density", 0.2, False),
}
HELD_OUT = {
    "cifar10": "45,000 of 50,000 images",
    "imdb": "22,500 of 25,000 reviews",
    "flowers102": "1,836 of 2,040 images",
}
PRECISION = "steps.precision"  # as `changed` of a row names it
LENGTH = ("epochs", "schedule")  # settings of which a recipe may have others for a scaffold
SHOWN = 8  # digits of a fingerprint
RESAMPLED = {"resample_batch": 2, "resample_microbatch": 4}  # mode → k, as in its file and in Table 4
# What the paper calls a condition.
OF_THE_ADAPTER = ("A_init", "B_init", "dora", "layer_norm", "residual", "rslora")


def grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """Group rows by a key, in the order of their first row."""
    groups = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def block_key(row: Row) -> str:
    """Return what rows of one block have in common."""
    same = [row[key] for key in ("model", "data", "size", "sample", "metric", "data_fingerprint")]
    changed = changed_of_training(row)
    same += ["" if changed else recipe_of(row), changed, precision_of(row), row["counts"]["full"]]
    return json.dumps([*same, settings_of(row)], sort_keys=True)


def settings_of(row: Row) -> dict:
    """What the row's recipe came to, flat: a recipe's file may change, and `changed` is told relative to it.

    Without those of LENGTH, which tell lines apart.
    """
    return {key: value for key, value in training_of(row).items() if key.partition(".")[0] not in LENGTH}


def length_of(row: Row) -> dict:
    """Epochs and schedule, flat."""
    return {key: value for key, value in training_of(row).items() if key.partition(".")[0] in LENGTH}


def training_of(row: Row) -> dict:
    """The settings that a full training has too, flat; {} for a row that holds no whole config."""
    return flatten(told_of_training(row["config"])) if "trainer" in row["config"] else {}


def changed_of_training(row: Row) -> dict:
    """What the run changed in its recipe, but for the scaffold, which a full training does not have."""
    return {key: value for key, value in row["changed"].items() if not key.startswith("scaffold.")}


def changed_of_scaffold(row: Row) -> dict:
    """Return the changes to the recipe's scaffold."""
    return {key: value for key, value in row["changed"].items() if key.startswith("scaffold.")}


def recipe_of(row: Row) -> str:
    """The recipe by which a full training is the measure of this run.

    A run that changed nothing of it but the scaffold or the precision of its steps keeps its name, unless
    somebody gave the run another.
    """
    own_name = row["recipe"] == "modified" or not changed_of_training(row)
    keeps = row["changed"] and own_name and changed_of_training(row).keys() <= {PRECISION}
    return row["config"]["recipe"]["name"] if keeps else row["recipe"]


def line_key(row: Row) -> str:
    """Return what rows of one line have in common."""
    alpha = row["alpha"] and float(row["alpha"])
    same = [row["mode"], row["rank"], alpha, row["counts"]["trainable"], row.get("weights_fingerprint")]
    options = scaffold_options(row) | resample_options(row) | left_out(row) | length_of(row)
    init = "" if "scaffold.family" in options else row["init"]  # a name for family and parameters
    return json.dumps([*same, init, options], sort_keys=True)


def left_out(row: Row) -> dict:
    """Which matrices have no adapter: kept and trained, or frozen. {} without a scaffold."""
    model = row["config"].get("model", {})
    return {key: model[key] for key in ("keep", "freeze") if row["config"].get("scaffold") and key in model}


def recipe_of_all(rows: Iterable[Row]) -> str:
    """The recipe of a block's rows: of several names the first that somebody gave."""
    return min({recipe_of(row) for row in rows}, key=lambda name: (name == "modified", name))


def place_of(row: Row) -> str:
    """Where the adapters are, as a preset of the model names it; "" for the first, the paper's."""
    model = row["config"].get("model", {})
    if row["mode"] == "baseline" or "place" not in model:
        return ""
    return "" if model["place"] == next(iter(model["places"])) else model["place"]


def stand_in(row: Row) -> str:
    """What took the place of the official data, in words; "" where they are the official ones."""
    if row["sample"]:
        return "built-in sample"
    data = row["config"].get("data", {})
    if row["data"] == "halfcheetah" and not is_expert_v2(data):
        return f"{data['source']}'s {(data.get('id') or 'expert-v0').rpartition('/')[2]} episodes"
    features = data.get("features", "official")
    return "" if features == "official" else f"{features} features"


def is_expert_v2(data: dict) -> bool:
    """Whether these are D4RL's HalfCheetah-expert-v2, the paper's; Minari's expert is another one."""
    return data.get("source") == "d4rl" and data.get("id") in (None, "halfcheetah-expert-v2")


def held_out(row: Row) -> str:
    """What becomes of the training examples where the paper names no part to choose the epoch by, or ""."""
    if row["sample"] or row["data"] not in HELD_OUT:
        return ""
    if row["config"].get("data", {}).get("hold_out") is False:
        return "All training examples are trained on, and the last epoch counts."
    return f"Trained on {HELD_OUT[row['data']]}; the others choose the epoch. The paper trains on all."


def find_baseline(cells: dict[str, list[Row]], row: Row) -> list[Row]:
    """The rows of the full training by which a row is measured; empty if there is none.

    Of several, such as one of 20 epochs and one of 40, it is the one that was trained as long as the row.
    """
    found = [cell for cell in cells.values() if cell[0]["mode"] == "baseline"]
    if len(found) > 1:
        found = [cell for cell in found if length_of(cell[0]) == length_of(row)]
    return found[0] if len(found) == 1 else []


def newest(cell: list[Row]) -> list[Row]:
    """One row per pair of seeds, in their order; of a run that was repeated, the newest."""
    latest = {}
    for row in sorted(cell, key=lambda row: (row["finished"], row["digest"])):
        latest[row["seed"], row["backbone_seed"]] = row
    return [latest[seeds] for seeds in sorted(latest)]


def options_of(row: Row, cells: dict[str, list[Row]]) -> str:
    """What tells a line's scaffold from another's of the same mode, init, rank and adapter, in words.

    A line that kept to the scaffold of its recipe is not told from those that changed it; these say what.
    """
    if own := own_options(row):
        return ", ".join(f"{key}={value}" for key, value in own.items())
    same = ("mode", "init", "rank", "alpha")
    twins = [cell[0] for cell in cells.values() if all(cell[0][key] == row[key] for key in same)]
    twins = [twin for twin in twins if adapter_of(twin) == adapter_of(row) and not own_options(twin)]
    described, mine = [all_options(twin) for twin in twins], all_options(row)
    differing = [key for key in mine if any(other.get(key) != mine[key] for other in described)]
    words = (f"{key.split('.')[-1]}={mine[key]}" for key in differing)
    return ", ".join(dict.fromkeys(words))  # a family's parameters stand under init and under scaffold


def all_options(row: Row) -> dict:
    """What may tell a row from another line's of its mode, init, rank and α."""
    weights = {"weights": row["weights_fingerprint"][:SHOWN]} if "weights_fingerprint" in row else {}
    trainable = {"trainable": row["counts"]["trainable"]}
    return scaffold_options(row) | trainable | left_out(row) | length_of(row) | weights


def own_options(row: Row) -> dict:
    """In what a row left the scaffold of its recipe, or its family as it is read now."""
    place = {"place": place} if (place := place_of(row)) else {}
    changed = changed_of_scaffold(row).items()
    named = {key.removeprefix("scaffold.").removeprefix("parameters."): value for key, value in changed}
    return place | first_reading(row) | resample_options(row) | named


def resample_options(row: Row) -> dict:
    """What a run over several scaffolds for each step left of its mode's k = 2 or 4, new at each step."""
    resample = row["config"].get("resample")
    if not isinstance(resample, dict):
        return {}
    first = {"scaffolds": RESAMPLED.get(row["mode"]), "fresh": True}
    return {key: resample[key] for key, value in first.items() if resample[key] != value}


def first_reading(row: Row) -> dict:
    """The parameter that tells a row's family from the one of that name now; {} for a family as it is now."""
    init = row["config"].get("init") or {}
    parameter, value, left_out = FIRST_READING.get(init.get("family"), ("", None, False))
    if not parameter or row["init"] != init["family"]:  # the row's W_seed is not drawn from its init
        return {}
    unsaid = value if left_out else None
    return {parameter: value} if init["parameters"].get(parameter, unsaid) == value else {}


def adapter_of(row: Row) -> str:
    """The options of the adapters that are on, as paper.csv names them after a condition: +dora+residual."""
    options = chosen(row["config"].get("scaffold") or {}, "scaffold")
    on = {name: options[name] for name in OF_THE_ADAPTER if name in options}
    return "".join(f"+{name}" if value is True else f"+{name}={value}" for name, value in on.items())


def scaffold_options(row: Row) -> dict:
    """The options of W_seed and its adapters in the row's config, flat, without the seed.

    What came later and stands at its first value is left out: older rows do not have it.
    """
    flat = flatten({"scaffold": chosen(row["config"].get("scaffold") or {}, "scaffold")})
    for key, value in first_reading(row).items():
        flat[f"scaffold.parameters.{key}"] = value
    return {key: value for key, value in sorted(flat.items()) if key not in OF_THE_ROW and value != {}}


def row_options(row: Row) -> str:
    """What tells a run from others of its mode, init and rank: adapter, scaffold, changes of its recipe."""
    named = own_options(row) | changed_of_training(row)
    words = [word for word in adapter_of(row).split("+") if word]
    return ", ".join([*words, *(f"{key}={value}" for key, value in named.items())])


def removed_score(row: Row) -> float | None:
    """The score of the same weights without their scaffold; None where it was not taken."""
    return row["arms"].get("scaffold_removed")
