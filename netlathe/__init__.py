"""The public import of Netlathe: `from netlathe import Client`.

    with Client() as client:                                   # NETLATHE_URL, NETLATHE_TOKEN or the local server's
        model = client.models.create("net.onnx", preprocessing={"mean": [0.5], "std": [0.25]})
        data = client.datasets.create("digits.npz")
        job = client.jobs.create(
            model=model.id, dataset=data.id,
            targets=[{"device": "local-onnxruntime-t1-fp32", "max_latency_ratio": 0.5}],
            limits={"max_accuracy_drop": 0.02}, methods=["filter_prune"], strategies=["greedy"])
        job = client.jobs.wait(job.id, progress=True)
        client.jobs.download(job.id, "out/")

Every call may be repeated safely, because the retries of a POST carry the same idempotency key.

    NetlatheError
    ├── Unreachable                no answer after all retries
    ├── Untrusted                  the server's certificate is not trusted here
    ├── BadProxy                   NETLATHE_PROXY names a proxy that cannot be used
    ├── Unreadable                 an answer that does not follow the contract
    ├── Damaged                    a download whose sha256 differs from the announced one
    └── Refused (problem)          the server's problem document: code, detail, errors by field
        ├── Unauthorized           401, 403
        ├── NotFound               404
        ├── Conflict               409
        ├── Invalid                400, 413, 415, 422
        ├── UpgradeNeeded          426
        └── ServerFailed           429 and 5xx after all retries
"""

from netlathe.client import Client
from netlathe.connection import DEFAULT_URL, __version__
from netlathe.credentials import data_dir
from netlathe.errors import (
    BadProxy,
    Conflict,
    Damaged,
    FieldError,
    Invalid,
    NetlatheError,
    NotFound,
    Problem,
    Refused,
    ServerFailed,
    Unauthorized,
    Unreachable,
    Unreadable,
    Untrusted,
    UpgradeNeeded,
)
from netlathe.proxy import is_loopback, proxy_to, shown_proxy
from netlathe.resources.resource import default_name
from netlathe.results import (
    FINAL_STATES,
    AccuracyDrop,
    Artifact,
    ChannelGroup,
    Dataset,
    Device,
    DeviceResult,
    Evaluation,
    Event,
    Failure,
    Job,
    Json,
    Latency,
    Layer,
    Measurement,
    Model,
    Named,
    Page,
    Prediction,
    Progress,
    Summary,
    Token,
)

__all__ = [
    "DEFAULT_URL",
    "FINAL_STATES",
    "AccuracyDrop",
    "Artifact",
    "BadProxy",
    "ChannelGroup",
    "Client",
    "Conflict",
    "Damaged",
    "Dataset",
    "Device",
    "DeviceResult",
    "Evaluation",
    "Event",
    "Failure",
    "FieldError",
    "Invalid",
    "Job",
    "Json",
    "Latency",
    "Layer",
    "Measurement",
    "Model",
    "Named",
    "NetlatheError",
    "NotFound",
    "Page",
    "Prediction",
    "Problem",
    "Progress",
    "Refused",
    "ServerFailed",
    "Summary",
    "Token",
    "Unauthorized",
    "Unreachable",
    "Unreadable",
    "Untrusted",
    "UpgradeNeeded",
    "__version__",
    "data_dir",
    "default_name",
    "is_loopback",
    "proxy_to",
    "shown_proxy",
]
