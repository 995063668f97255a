"""From weights to the shipped file: ONNX, fused, int8. Needs torch."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kidrails_guard.classifier.encode import Window
from kidrails_guard.classifier.fit import collate
from kidrails_guard.classifier.labels import combine
from kidrails_guard.classifier.model import run_window
from kidrails_guard.classifier.network import HazardNetwork
from kidrails_guard.errors import DataError
from kidrails_guard.files import write_atomic

SPARED = ("/encoder/encoder/layer.0/output/dense/MatMul",)
"""Left in fp32: outliers there cost the most precision for their size."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def save_weights(network: HazardNetwork, path: Path, *, record: dict[str, Any]) -> None:
    """Write the trained weights, for another calibration or export; they are not shipped.

    Args:
        network: trained.
        path: a ``.safetensors`` file.
        record: how they came to be; kept in the file's metadata.
    """
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_atomic(path, save(tensors, metadata={"record": json.dumps(record)}))


def load_weights(encoder: Path, path: Path) -> tuple[HazardNetwork, dict[str, Any]]:
    """Return the network of `save_weights` and its record.

    Raises:
        DataError: the file is not one of ours, or the encoder is another than it was trained from.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    record = read_record(path)
    network = HazardNetwork(encoder)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise _not_ours(path, error) from None
    except RuntimeError:
        raise DataError(
            f"{path}: weights of another shape than {encoder} and this version's labels make; "
            "accepted: the encoder that they were trained from, by --encoder"
        ) from None
    return network.eval(), record


def read_record(path: Path) -> dict[str, Any]:
    """Return the record that `save_weights` put beside weights.

    Raises:
        DataError: the file is not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            record: dict[str, Any] = json.loads((stream.metadata() or {})["record"])
    except (OSError, SafetensorError, KeyError) as error:
        raise _not_ours(path, error) from None
    return record


def _not_ours(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: not weights of this classifier ({type(error).__name__}); accepted: the "
        "weights.safetensors of: kidrails guard train"
    )


def average(networks: Sequence[HazardNetwork]) -> HazardNetwork:
    """Return a network with the mean of all networks' weights.

    Args:
        networks: runs from the same start; at least one.
    """
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        for name, tensor in states[0].items()
    }
    network = copy.deepcopy(networks[0])
    network.load_state_dict(mean)
    network.eval()
    return network


def export_onnx(network: HazardNetwork, path: Path) -> None:
    """Write the network as a fused int8 ONNX file.

    Args:
        network: trained; moved to evaluation.
        path: the file; its folder exists.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    network.eval()
    sample = collate([Window((101, 2, 2000, 2001, 102), (0,) * 5), Window((101, 2, 102), (0,) * 3)])
    with tempfile.TemporaryDirectory() as folder:
        plain, fused = Path(folder, "plain.onnx"), Path(folder, "fused.onnx")
        axes = {name: {0: "rows", 1: "tokens"} for name in INPUTS} | {"logits": {0: "rows"}}
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                sample,
                str(plain),
                input_names=list(INPUTS),
                output_names=["logits"],
                dynamic_axes=axes,
                opset_version=17,
                dynamo=False,
            )
        logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
        config = network.encoder.config
        model = optimize_model(
            str(plain),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
        )
        model.save_model_to_file(str(fused))
        # Seven bits: eight overflow in the 16-bit sums of processors without VNNI (AVX2).
        quantize_dynamic(
            fused,
            Path(folder, "int8.onnx"),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=list(SPARED),
            extra_options={"DefaultTensorType": 1},
        )
        shutil.copyfile(Path(folder, "int8.onnx"), path)


def onnx_logits(path: Path, windows: Sequence[Sequence[Window]]) -> NDArray[np.float32]:
    """Return what the exported file says of each text, shape (texts, WIDTH)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # One by one, as in use: int8 scales are taken from all that runs together.
    return np.stack(
        [
            combine(np.concatenate([run_window(session, window) for window in own]))
            for own in windows
        ]
    )
