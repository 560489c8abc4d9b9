"""What a benchmark leaves: a Markdown table on the terminal, and the same as JSON and as a chart."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from cait.bench.machine import describe_machine, in_words
from cait.bench.measure import Measurement
from cait.errors import CaitError
from cait.files import replacing, writable_folder, write_text


@dataclasses.dataclass(frozen=True)
class Table:
    """Measurements of one unit that belong together.

    Attributes:
        title: what was measured, with its size.
        measurements: in the order to show them.
        baseline: name of the measurement that the others are compared with, or empty.
        goals: by name, what is to be reached: at least for a rate, at most for anything else. It is a ratio to the
            baseline, where there is one.
        x_label: with it the table is also a curve over `x`.
        x: for each measurement, its place on that axis.
        batch_size: of measurements in images/s; with it the table also has the milliseconds a batch.
    """

    title: str
    measurements: list[Measurement]
    baseline: str = ""
    goals: dict[str, float] = dataclasses.field(default_factory=dict)
    x_label: str = ""
    x: Sequence[float] = dataclasses.field(default_factory=list)
    batch_size: int = 0

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each measurement: by what is given `latency_ms`, `ratio`, `goal` and `holds` as well."""
        base = next((m for m in self.measurements if m.name == self.baseline), None)
        rows = []
        for measurement in self.measurements:
            row = measurement.as_dict()
            if self.batch_size:
                row["latency_ms"] = 1000 * self.batch_size / row["median"]
            if base is not None:
                row["ratio"] = measurement.ratio_to(base)
            if measurement.name in self.goals:
                goal = self.goals[measurement.name]
                found = row.get("ratio", row["median"])
                holds = found >= goal if measurement.is_rate else found <= goal
                row |= {"goal": goal, "holds": holds}
            rows.append(row)
        return rows

    def markdown(self) -> str:
        """The table for a terminal and for a document."""
        unit = self.measurements[0].unit
        heads = [self.title, unit, "quartiles"]
        heads += ["ms a batch"] if self.batch_size else []
        heads += [f"ratio to {self.baseline}"] if self.baseline else []
        heads += ["goal"] if self.goals else []
        lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        for row in self.rows():
            cells = [row["name"], _short(row["median"])]
            cells.append(f"{_short(row['lower_quartile'])} - {_short(row['upper_quartile'])}")
            cells += [_short(row["latency_ms"])] if self.batch_size else []
            cells += [f"{row['ratio']:.3f}"] if self.baseline else []
            if self.goals:
                sign = "at least" if self.measurements[0].is_rate else "at most"
                verdict = "holds" if row.get("holds") else "missed"
                cells.append(f"{sign} {row['goal']:g}: {verdict}" if "goal" in row else "")
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Report:
    """What one benchmark found.

    Attributes:
        benchmark: its name, which names the files.
        command: that repeats it.
        tables: the measurements.
        settings: what was measured with which sizes, for JSON.
        notes: sentences on what cannot be seen from the tables, such as what was not there to be measured.
        machine: see `describe_machine`.
    """

    benchmark: str
    command: str
    tables: list[Table]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    machine: dict[str, Any] = dataclasses.field(default_factory=describe_machine)

    def markdown(self) -> str:
        """All tables, with machine and command."""
        parts = [f"{in_words(self.machine)}\n`{self.command}`", *(table.markdown() for table in self.tables)]
        return "\n\n".join(parts + ["\n".join(self.notes)] if self.notes else parts)

    def write(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Writes `BENCHMARK.json` and, where matplotlib is installed, `BENCHMARK.svg`; the files written.

        Raises:
            CaitError: the folder cannot be written.
        """
        folder = writable_folder(folder)
        data = {name: getattr(self, name) for name in ("benchmark", "command", "machine", "settings", "notes")}
        data["tables"] = [{"title": t.title, "baseline": t.baseline, "rows": t.rows()} for t in self.tables]
        write_text(folder / f"{self.benchmark}.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        try:
            draw(self.tables, folder / f"{self.benchmark}.svg")
        except CaitError as error:  # the chart is an extra
            self.notes.append(f"no chart: {error}")
            return [folder / f"{self.benchmark}.json"]
        return [folder / f"{self.benchmark}.json", folder / f"{self.benchmark}.svg"]


def draw(tables: list[Table], path: pathlib.Path) -> None:
    """Draws a panel for each table into an SVG file: bars with their quartiles, or a curve over `x`.

    Raises:
        CaitError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CaitError("matplotlib is needed for the chart: pip install matplotlib") from error
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    figure = Figure(figsize=(6.5 * columns, 3.6 * rows), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(tables) :]:
        axes.set_axis_off()
    for axes, table in zip(panels, tables):
        (_curve if table.x_label else _bars)(axes, table)
        axes.set_title(table.title, fontsize=10)
        axes.grid(alpha=0.3)
    with matplotlib.rc_context({"svg.hashsalt": "cait"}), replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _bars(axes, table: Table) -> None:
    names = [measurement.name for measurement in table.measurements]
    medians = [measurement.median for measurement in table.measurements]
    spread = [measurement.quartiles for measurement in table.measurements]
    errors = [
        [median - lower for median, (lower, _) in zip(medians, spread)],
        [upper - median for median, (_, upper) in zip(medians, spread)],
    ]
    colours = ["tab:gray" if name == table.baseline else "tab:blue" for name in names]
    axes.barh(names, medians, xerr=errors, color=colours)
    axes.invert_yaxis()
    axes.set_xlabel(table.measurements[0].unit)
    axes.set_xlim(left=0)


def _curve(axes, table: Table) -> None:
    medians = [measurement.median for measurement in table.measurements]
    axes.plot(table.x, medians, marker="o")
    axes.fill_between(table.x, *zip(*(measurement.quartiles for measurement in table.measurements)), alpha=0.3)
    axes.set(xlabel=table.x_label, ylabel=table.measurements[0].unit)
    axes.set_ylim(0, 1.05 * axes.dataLim.y1)  # matplotlib leaves a margin only of a curve's own height


def _short(value: float) -> str:
    """Three digits that count, at least."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
