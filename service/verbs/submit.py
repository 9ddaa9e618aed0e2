"""submit: send a network, a data set and a device with a limit as one job."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.verbs.terminal import AsJson, connect, exit_code, show

if TYPE_CHECKING:
    from netlathe import Client, Job

DATA_FILES = (".npz", ".parquet", ".zip")
PICKLES = (".pt", ".pt2", ".pth", ".pkl", ".bin", ".ckpt")


def submit(
    model: Annotated[str, typer.Option(help="file.onnx, package.module:factory, or an uploaded model.")],
    data: Annotated[str, typer.Option(help="file.npz, .parquet or .zip, or an uploaded data set.")],
    device: Annotated[
        list[str] | None, typer.Option(help="Device on which the latency is limited; repeat the option for several.")
    ] = None,
    max_latency_ms: Annotated[
        list[float] | None,
        typer.Option(
            help="Latency limit in milliseconds: one for all devices, or one for each --device, in their order."
        ),
    ] = None,
    max_latency_ratio: Annotated[
        list[float] | None,
        typer.Option(
            help="Latency limit as a share of the original network's latency: one for all devices, or one for each."
        ),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None, typer.Option(help="Largest loss of accuracy against the control; 0.01 is one point.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Task of the network: classification, or another task that is installed on the server."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="Metric to optimise: accuracy, or with --max-accuracy-drop any other metric, e.g. size_bytes."
        ),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="Another limit, e.g. max_size_bytes=100000; repeat the option for several.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Method, e.g. filter_prune, weight_prune, int8_ptq or fp16; repeat to combine several."),
    ] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="Search strategy, e.g. greedy; repeat to race several.")
    ] = None,
    evaluations: Annotated[int | None, typer.Option(help="Number of candidates that the search evaluates.")] = None,
    wall_s: Annotated[float | None, typer.Option(help="Time for search and training together, in seconds.")] = None,
    finalists: Annotated[
        int | None, typer.Option(help="Number of candidates that are trained after the search.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of training, the same for the finalists and the control.")
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="Augmentation of the training images: none, crop, crop_flip or auto.")
    ] = None,
    attention: Annotated[
        float | None,
        typer.Option(help="Weight of attention transfer from the original in training; 0 is off, the paper has 1000."),
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one input image, e.g. 3,32,32 (with package.module:factory).")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="State dictionary, .pt or .safetensors (with package.module:factory).")
    ] = None,
    preprocessing: Annotated[str | None, typer.Option(help="JSON, or a JSON file, with scale, mean, std, ...")] = None,
    output: Annotated[str | None, typer.Option(help="Name of the output to score, if there are several.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="Axes of the images if their shape is ambiguous: NHW, NHWC or NCHW.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes, if the labels do not cover all of them.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job; generated if omitted.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness: the same seed gives the same candidates.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Submit even if the original network looks untrained.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Wait until the job ends, with progress bars.")] = False,
    download: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --watch: download the result files into this folder at the end."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Submit a job; with --watch, wait for it and compare the result with the original.

    A factory returns the trained module, or (module, example). The module is exported on this machine, in a separate
    process with this folder first on its path. Your code never leaves this machine. An unchanged file is not uploaded
    again.

    \b
      netlathe submit --model net.onnx --data images.npz --device local-onnxruntime-t1-fp32 \\
                      --max-latency-ms 5 --max-accuracy-drop 0.01 --watch
      netlathe submit --model mypackage.nets:resnet20 --weights best.pt --input-shape 3,32,32 \\
                      --data cifar10.parquet --device pi5-onnxruntime-t1-fp32 --max-latency-ratio 0.5 \\
                      --preprocessing '{"mean": [0.49, 0.48, 0.45], "std": [0.25, 0.24, 0.26]}'
      netlathe submit --model resnet20 --data cifar10 --method 'filter_prune={"importance": "l2"}' \\
                      --method int8_ptq --limit max_macs_ratio=0.5
      netlathe submit --model lenet5 --data mnist --method weight_prune --method fp16 --strategy bayesian \\
                      --objective stored_bytes --max-accuracy-drop 0.003
    """
    if download is not None and not watch:
        raise typer.BadParameter("--download needs --watch, because the files exist only after the job has ended")
    fields: dict[str, Any] = {
        "objective": {"metric": objective} if objective is not None else None,
        "targets": _targets(device or [], max_latency_ms or [], max_latency_ratio or []),
        "limits": _limits(limit or [], max_accuracy_drop),
        "methods": _named("--method", method),
        "strategies": _named("--strategy", strategy),
        "budget": _given(evaluations=evaluations, wall_s=_finite("--wall-s", wall_s), finalists=finalists),
        "training": _given(epochs=epochs, augment=augment, attention=_finite("--attention", attention)),
    }
    settings = _preprocessing(preprocessing)
    of_model = {"--preprocessing": preprocessing, "--output": output}
    _check_read_already(model, data, of_model, {"--layout": layout, "--classes": classes})
    with connect() as client:
        model_id = _upload_model(client, model, input_shape, weights, settings, output)
        data_id = _upload_data(client, data, layout, classes)
        job = client.jobs.create(
            model=model_id, dataset=data_id, name=name, task=task, seed=seed, force=force, **fields
        )
        if watch:
            job = _follow(client, job, as_json)
        paths = client.jobs.download(job.id, download) if watch and download is not None and job.finished else ()
    show(job.raw, as_json, lambda: _print(job, client.url, paths))
    return exit_code(job) if watch else 0


def _follow(client: Client, job: Job, as_json: bool) -> Job:
    try:
        return client.jobs.wait(job.id, progress=not as_json)
    except KeyboardInterrupt:
        typer.echo(f"the job goes on: netlathe show {job.name} --watch", err=True)
        raise


def _print(job: Job, url: str, paths: tuple[Path, ...]) -> None:
    from service.verbs.report import print_job

    print_job(job)
    typer.echo(f"\nsee  {url}/jobs/{job.id}\nor   netlathe show {job.name} --watch")
    for path in paths:
        typer.echo(path)


def _targets(devices: list[str], limits_ms: list[float], ratios: list[float]) -> list[dict[str, Any]]:
    """Return the devices with their limits; one limit is for all devices, several are for one device each."""
    given = {"max_latency_ms": limits_ms, "max_latency_ratio": ratios}
    wanted = [name for name, limits in given.items() if limits]
    if devices and len(wanted) != 1:
        raise typer.BadParameter("--device needs exactly one of --max-latency-ms and --max-latency-ratio")
    if wanted and not devices:
        raise typer.BadParameter(f"--{wanted[0].replace('_', '-')} needs a --device; see `netlathe devices`")
    if not devices:
        return []
    name, option = wanted[0], f"--{wanted[0].replace('_', '-')}"
    limits = [_finite(option, limit) for limit in given[name]]
    if len(limits) not in (1, len(devices)):
        told = f"{option} is given {len(limits)} times for {len(devices)} devices"
        raise typer.BadParameter(f"{told}: give it once, or once for each --device, in the same order")
    each = limits * len(devices) if len(limits) == 1 else limits
    return [{"device": device, name: limit} for device, limit in zip(devices, each, strict=True)]


def _limits(limits: list[str], max_accuracy_drop: float | None) -> dict[str, float] | None:
    found = _given(max_accuracy_drop=_finite("--max-accuracy-drop", max_accuracy_drop)) or {}
    for text in limits:
        name, _, value = text.partition("=")
        if name in found:
            raise typer.BadParameter(f"--limit: {name} is given twice")
        try:
            found[name] = _finite("--limit", float(value))
        except ValueError:
            raise typer.BadParameter(f"--limit is name=number, such as max_macs_ratio=0.5; got {text!r}") from None
    return found or None


def _finite(option: str, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{option} must be a number, not {value}")
    return value


def _named(option: str, given: list[str] | None) -> list[str | dict[str, Any]] | None:
    """Parse `name` or `name={"setting": value}`."""
    found: list[str | dict[str, Any]] = []
    for text in given or ():
        name, equals, settings = text.partition("=")
        found.append({"name": name, "settings": _json(option, settings)} if equals else name)
    return found or None


def _given(**values: Any) -> dict[str, Any] | None:
    return {name: value for name, value in values.items() if value is not None} or None


def _preprocessing(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    path = Path(text)
    return _json("--preprocessing", path.read_text() if not text.lstrip().startswith("{") and path.is_file() else text)


def _json(option: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error} in {text[:80]!r}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{option} needs a JSON object, got {text[:80]!r}")
    return found


def _check_read_already(
    model: str, data: str, of_model: Mapping[str, object | None], of_data: Mapping[str, object | None]
) -> None:
    """Refuse options that say how to read a file if the file has already been uploaded, because they would have no
    effect.
    """
    known_model = Path(model).suffix not in (".onnx", *PICKLES) and ":" not in model
    known_data = Path(data).suffix not in DATA_FILES and not Path(data).is_file()
    for option, ref, known, given in (("--model", model, known_model, of_model), ("--data", data, known_data, of_data)):
        wrong = [name for name, value in given.items() if value is not None]
        if known and wrong:
            raise typer.BadParameter(
                f"{' and '.join(wrong)}: only for a file that is uploaded now; there is no file {ref}, so {option} "
                "names an earlier upload, which keeps the settings it was uploaded with"
            )


def _upload_model(
    client: Client,
    model: str,
    input_shape: str | None,
    weights: Path | None,
    preprocessing: dict[str, Any] | None,
    output: str | None,
) -> str:
    path = Path(model)
    _refuse_folder("--model", path)
    if path.suffix in PICKLES:
        raise typer.BadParameter(
            f"{model}: pickled files are refused, because they can run code. Give the factory that makes the module: "
            "--model package.module:factory --weights file.pt --input-shape 3,32,32"
        )
    is_factory = path.suffix != ".onnx" and ":" in model
    if not is_factory and (weights is not None or input_shape is not None):
        raise typer.BadParameter(f"--weights and --input-shape are for a package.module:factory; --model is {model}")
    if path.suffix != ".onnx" and not is_factory:
        return model
    with _exported(model, input_shape, weights) if path.suffix != ".onnx" else _as_it_is(path) as file:
        return client.models.create(file, preprocessing=preprocessing, output=output).id


@contextmanager
def _as_it_is(path: Path) -> Iterator[Path]:
    if not path.is_file():
        raise typer.BadParameter(f"--model: there is no file {path}")
    yield path


@contextmanager
def _exported(spec: str, input_shape: str | None, weights: Path | None) -> Iterator[Path]:
    from service.verbs.torch_export import export_in_child

    with tempfile.TemporaryDirectory(prefix="netlathe-export-") as folder:
        out = Path(folder) / f"{spec.rpartition(':')[2] or 'net'}.onnx"
        export_in_child(spec, out, folder=Path.cwd(), input_shape=input_shape, weights=weights)
        yield out


def _upload_data(client: Client, data: str, layout: str | None, classes: int | None) -> str:
    path = Path(data)
    _refuse_folder("--data", path)
    if path.is_file():
        return client.datasets.create(path, layout=layout, classes=classes).id
    if path.suffix in DATA_FILES:
        raise typer.BadParameter(f"--data: there is no file {path}")
    return data


def _refuse_folder(option: str, path: Path) -> None:
    """Refuse a path to a folder. A bare word may be the name of an upload, even if a folder has the same name."""
    if len(path.parts) > 1 and path.is_dir():
        raise typer.BadParameter(f"{option}: {path} is a folder")


def register(app: typer.Typer) -> None:
    app.command()(submit)
