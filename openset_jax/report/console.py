"""The tables and lines that the commands print."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from openset_jax.data.pools import ROLES, SPLITS, Pool
from openset_jax.data.sampler import Sampler
from openset_jax.model.network import Network
from openset_jax.report.formatting import Number, title
from openset_jax.text import abridged, printable, shortened
from openset_jax.training import run_length, run_setup, state
from openset_jax.training.progress import Progress

Cell = str | int | float | Number | None

_EXTREMES = 10  # best classes, and worst classes, that are listed if there are very many
_SHOWN = 12  # groups of a role that are listed one by one
_SIDES = {"keep_knowns": "knowns", "accept_negatives": "negatives"}  # rule -> the images whose accepted share it limits


def columns(rows: Sequence[Sequence[Cell]]) -> str:
    """Returns a table as text, the first column aligned to the left and the others to the right."""
    text = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    line = lambda row: row[0].ljust(widths[0]) + "".join(f"  {c.rjust(w)}" for c, w in zip(row[1:], widths[1:], strict=True))
    return "\n".join(f"  {line(row)}".rstrip() for row in text)


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return f"{value['value']:.4f} ({value['low']:.3f}-{value['high']:.3f})"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else printable(value)


def run_description(run: run_setup.Run) -> str:
    """Returns the dtype, the input, the pool, the sampler, the length and the parameters of a run."""
    spec = run.spec
    lines = [
        run_setup.computation_line(spec, run.cache.input_choice(spec, run.pool)),
        run.warning,
        pool_table(run.pool),
        sampler_line(run.sampler, [*run.pool.classes, "none"], run.plateau_loss(Progress())),
        run_length.description(spec, run.sampler, run.pool.num_classes),
        network_table(run.network.model, spec.inputs.shape),
    ]
    return "\n".join(filter(None, lines))


def network_table(network: Network, shape: tuple[int, ...]) -> str:
    """Returns the groups of layers in the order in which they run, their parameters, and whether they are trained."""
    params = state.variables_shape(network, shape)["params"]
    count = lambda layers: sum(leaf.size for layer in layers for leaf in jax.tree.leaves(params[layer]))
    rows: list[Sequence[Cell]] = [["layers", "parameters", ""]]
    for group, names in reversed(network.groups.items()):
        layers = [layer for layer in names if layer in params]
        text = group if layers == [group] else f"{group}: {', '.join(layers)}"
        rows.append([text, count(layers), "trained" if layers[0] in network.trained else "frozen"])
    return columns([*rows, ["all", count(params), ""]])


def pool_table(pool: Pool) -> str:
    """Returns the numbers of images by role, group and split, and the notes of the sources."""
    rows: list[Sequence[Cell]] = [[pool.array.noun, *SPLITS]]
    for role, groups in zip(ROLES, pool.counts().values(), strict=True):
        listed = list(groups.items())
        for name, counts in listed[:_SHOWN]:
            rows.append([f"{role}: {shortened(name)}", *counts.values()])
        if rest := listed[_SHOWN:]:
            rows.append([f"{role}: {len(rest)} more", *(sum(counts[s] for _, counts in rest) for s in SPLITS)])
    notes = dict.fromkeys(note for source in pool.sources for note in source.notes)
    if pool.num_classes == 1:
        in_folder = any(source.format == "path" for source in pool.sources)
        hint = " In a folder, each known/CLASS/ is one class, with its subfolders." if in_folder else ""
        notes[f"One known class, {pool.classes[0]!r}: the network decides whether an image is of it or not.{hint}"] = None
    return "\n".join([columns(rows), *notes])


def sampler_line(sampler: Sampler, names: Sequence[str], plateau: float) -> str:
    """Returns the batch size, the share of each class and "none", and the loss of a network whose outputs are constant."""
    shares = [f"{name} {p:.1%}" for name, p in zip(names, sampler.prior, strict=False)]
    constant = f"A network that ignores its inputs has a loss of at least {plateau:.3f}."
    return f"Each batch of {sampler.batch_size}: {abridged(shares)}. {constant}"


def result_table(result: Mapping[str, Any]) -> str:
    """Returns the content of `metrics.json` as text."""
    known, counts = result["known"], result["counts"]
    skipped = f" ({counts['skipped']} unreadable images skipped)" if counts["skipped"] else ""
    rows: list[Sequence[Cell]] = [["known classes", "images", "accuracy"]]
    rows += [["all", sum(counts["known"].values()), known["accuracy"]]] if len(known["recall"]) > 1 else []
    rows += _best_and_worst([[shortened(name), counts["known"][name], recall] for name, recall in known["recall"].items()])
    one_class = "  With one known class its accuracy is always 1 and is left out, and OSCR equals AUROC."
    lines = [
        f"Test images, step {result['step']}{skipped}. Brackets: 95 % intervals.",
        columns(rows),
        columns([["none of these", "images", "AUROC", "OSCR", "rejected"], *_none_rows(result)]),
        "  AUROC: P(score of an unknown > score of a known image). OSCR: P(this, and the known image is classified "
        "correctly).",
        *([one_class] if len(known["recall"]) == 1 else []),
        *_score_lines(result),
        *_operating_lines(result["operating_point"]),
        *_confusion_lines(result["confusion"]),
    ]
    return "\n".join(lines)


def _score_lines(result: Mapping[str, Any]) -> Iterator[str]:
    if not result["scores"].keys() - {"own"}:
        return
    best = sorted(result["scores"].items(), key=lambda item: _against_unseen(item[1]), reverse=True)
    auroc = lambda kind: None if kind is None else kind["auroc"]
    yield "AUROC of each score. own: the score that is compared with the threshold."
    yield columns([["", *map(title, best[0][1])], *([n, *map(auroc, k.values())] for n, k in best)])
    for name, why in result["scores_left_out"].items():
        yield f"  {name}: left out: {why}"


def _against_unseen(kinds: Mapping[str, Any]) -> float:
    """Returns the AUROC on unseen unknowns, or on seen negatives if there are no unseen unknowns."""
    found = kinds["unseen_unknowns"] or kinds["seen_negatives"]
    return found["auroc"]["value"] if found else 0.0


def _operating_lines(point: Mapping[str, Any]) -> Iterator[str]:
    threshold = point["threshold"]
    side = _SIDES.get(point["rule"])
    target = "the least expected cost" if side is None else f"{point['rule'].replace('_', ' ')} = {point['target']:g}"
    yield (
        f"Operating point: {target} on {point['validation']['knowns']:,} knowns and {point['validation']['negatives']:,} "
        f"negatives of the validation split; accepted: score <= {float(threshold['value']):.4g} "
        f"({float(threshold['low']):.4g} to {float(threshold['high']):.4g})"
    )
    if promised := point["promised"]:
        yield (
            f"  Predicted: {promised['low']:.1%} to {promised['high']:.1%} of the test {side} are accepted (95 % prediction "
            "interval, if test and validation images have the same distribution)."
        )
    rows: list[Sequence[Cell]] = [["known recall", point["known_recall"]]]
    rows += [["known and correct", point["known_accuracy"]]] if len(point["prior"]) > 2 else []
    rows += [[f"{title(kind)} rejected", share] for kind, share in point["rejected"].items()]
    rows += [[f"expected cost, {title(kind)}", cost] for kind, cost in point["expected_cost"].items()]
    yield columns(rows)


def _confusion_lines(confusion: Mapping[str, Any]) -> list[str]:
    if len(confusion["columns"]) > 2 * _SHOWN:
        return ["The confusion matrix is in metrics.json."]
    answers = list(map(shortened, confusion["columns"]))
    names = [*answers[:-1], *map(title, confusion["rows"][len(answers) - 1 :])]
    rows = [[name, *row] for name, row in zip(names, confusion["counts"], strict=True)]
    table = columns([["", *answers], *rows])
    return ["Confusion at the operating point (rows: true class, columns: decision)", table]


def _none_rows(result: Mapping[str, Any]) -> Iterator[Sequence[Cell]]:
    open_set, counts, rejected = result["open_set"], result["counts"], result["operating_point"]["rejected"]
    for kind in ("seen_negatives", "unseen_unknowns"):
        row = open_set[kind]
        yield [title(kind), row["images"], row["auroc"], row.get("oscr"), rejected[kind]]
        of_groups = [(name, open_set["by_group"][name]) for name in counts[kind]]
        yield from _best_and_worst(
            [[f"  {shortened(n)}", row["images"], row["auroc"], row.get("oscr"), None] for n, row in of_groups]
        )


def _best_and_worst(rows: list[Sequence[Cell]]) -> list[Sequence[Cell]]:
    """Returns the rows; of very many the best ten, by the number in the third column, a row that says so, and the worst."""
    if len(rows) <= 2 * _EXTREMES + 1:
        return rows
    value = lambda row: row[2]["value"] if row[2] else -1.0
    ranked, left = sorted(rows, key=value, reverse=True), len(rows) - 2 * _EXTREMES
    note = [f"  ... {left:,} more in metrics.json; above the best, below the worst", *[""] * (len(rows[0]) - 1)]
    return [*ranked[:_EXTREMES], note, *ranked[-_EXTREMES:]]
