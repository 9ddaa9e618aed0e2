"""Verbs on devices: list them, read their tables, and predict or measure a network's latency on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.verbs.terminal import FAILED, MET, AsJson, DeviceRef, ModelRef, connect, print_fields, print_table, show

if TYPE_CHECKING:
    from netlathe import Measurement, Prediction

ModelOption = Annotated[str, typer.Option("--model", metavar="MODEL", help="Id or name of an uploaded model.")]


def devices(
    device: Annotated[str | None, typer.Argument(help="Show only this device, with all details.")] = None,
    as_json: AsJson = False,
) -> None:
    """List devices. A device is one configuration of a machine: runtime, threads, number type.

    \b
      netlathe devices
      netlathe devices local-onnxruntime-t1-fp32
    """
    with connect() as client:
        if device is not None:
            found = client.devices.get(device)
            return show(found.raw, as_json, lambda: print_fields(found.raw))
        page = client.devices.list()

    def human() -> None:
        rows = [(d.name, d.state, d.kind, f"{d.runtime} {d.runtime_version}", _percent(d.coverage), d.id) for d in page]
        print_table(
            ("device", "state", "kind", "runtime", "coverage", "id"), rows, "no devices yet; see netlathe agent --help"
        )
        for each in page:
            if each.state_reason:
                typer.echo(f"{each.name} is {each.state}: {each.state_reason}")

    return show([item.raw for item in page], as_json, human)


def table(
    device: DeviceRef,
    load: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="First, import the rows of this JSON file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table to this file as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show, export or import the latency table of a device. Each row is one measured operation.

    \b
      netlathe table pi5-onnxruntime-t1-fp32
      netlathe table pi5-onnxruntime-t1-fp32 --out pi5.json
      netlathe table other-pi5-onnxruntime-t1-fp32 --import pi5.json
    """
    for option, path in (("--import", load), ("--out", out)):
        if path is not None and path.is_dir():
            raise typer.BadParameter(f"{option}: {path} is a folder; give a file")
    with connect() as client:
        if load is not None:
            client.devices.import_table(device, _read_json(load))
        found = client.devices.table(device)
    if out is not None:
        out.write_text(json.dumps(found) + "\n")
    show(found, as_json, lambda: typer.echo(out) if out is not None else _print_rows(found))


def _print_rows(found: Any) -> None:
    rows = found.get("rows", [])
    wanted = ("kind", "in_channels", "out_channels", "kernel", "stride", "groups", "height", "width")
    cells = (
        (*(row.get("features", {}).get(name) for name in wanted), _us(row.get("latency_us")), _us(row.get("sigma_us")))
        for row in rows
    )
    print_table((*wanted, "latency_us", "sigma_us"), cells, "no rows yet; measure some with netlathe predict --fill")


def predict(
    device: DeviceRef,
    model: ModelOption,
    fill: Annotated[
        bool, typer.Option("--fill", help="Ask the agent to measure the missing rows, for later predictions.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Predict a network's latency from a device's table, without running the network.

    \b
      netlathe predict local-onnxruntime-t1-fp32 --model resnet20
      netlathe predict local-onnxruntime-t1-fp32 --model resnet20 --fill
    """
    with connect() as client:
        found = client.devices.predict(device, model, fill=fill)
    show(found.raw, as_json, lambda: _print_prediction(found))
    return MET if found.latency_ms is not None else FAILED


def _print_prediction(found: Prediction) -> None:
    if found.latency_ms is None:
        return typer.echo("unknown: the table has none of this network's operations; use --fill to have them measured")
    print_fields({"latency": _interval(found), "coverage": _percent(found.coverage), "missing": found.missing})
    return print_table(
        ("layers", "latency", "source"),
        ((", ".join(b.get("layers", ())), _ms(b.get("latency_ms")), b.get("source")) for b in found.blocks),
    )


def measure(device: DeviceRef, model: ModelOption, as_json: AsJson = False) -> int:
    """Time a whole network on a device and print the result.

    \b
      netlathe measure local-onnxruntime-t1-fp32 --model resnet20
    """
    with connect() as client:
        found = client.devices.measure(device, model)
    show(found.raw, as_json, lambda: typer.echo(_interval(found) if found.state == "done" else f"{found.state}"))
    return MET if found.state == "done" else FAILED


def preflight(
    model: ModelRef,
    device: Annotated[
        str,
        typer.Option(
            help="Device for which each layer's share of the time and the lowest latency after pruning are predicted."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show a network's prunable groups, its frozen groups with reasons, and the lowest latency that pruning can reach.

    \b
      netlathe preflight resnet20 --device local-onnxruntime-t1-fp32
    """
    with connect() as client:
        found = client.models.preflight(model, device)
    show(found, as_json, lambda: _print_preflight(found))


def _print_preflight(found: Mapping[str, Any]) -> None:
    shares = found.get("prunable_share") or {}
    print_fields(
        {
            "prunable": ", ".join(f"{share:.0%} of {name}" for name, share in shares.items()) or None,
            "latency": _ms(found.get("latency_ms")),
            "floor": _ms(found.get("floor_ms")),
            "coverage": _percent(found.get("coverage")),
        }
    )
    for warning in found.get("warnings") or ():
        typer.echo(f"warning: {warning}")
    for group in found.get("frozen") or ():
        typer.echo(f"frozen: {group.get('name')}: {group.get('reason')}")
    layers = found.get("layers") or ()
    rows = (
        (
            ", ".join(b["layers"]),
            "yes" if b.get("prunable") else "no",
            _ms(b.get("latency_ms")),
            _percent(b.get("share")),
        )
        for b in layers
    )
    typer.echo()
    print_table(("layers", "prunable", "latency", "share"), rows, "use --device to see where the time goes")


def _interval(found: Prediction | Measurement) -> str:
    sides = "" if found.low_ms is None or found.high_ms is None else f" [{found.low_ms:.3f}, {found.high_ms:.3f}]"
    return f"{found.latency_ms:.3f} ms{sides}"


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f} ms"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.0%}"


def _us(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}") from error


def register(app: typer.Typer) -> None:
    for verb in (devices, table, predict, measure, preflight):
        app.command()(verb)
