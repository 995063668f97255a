"""Reads what a GGUF file says about its model, with errors a person can act on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kidrails_guard.engine.vocabulary import Vocabulary, end_of_turn
from kidrails_guard.errors import EngineError, MissingDependency

if TYPE_CHECKING:
    from kidrails_guard.engine.layout import Array

MAGIC = b"GGUF"


def import_gguf() -> Any:
    """Return the `gguf` library.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise MissingDependency(
            "gguf", command="pip install 'kidrails-guard[engine]'", purpose="reading GGUF files"
        ) from None
    return gguf


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The sizes of a Llama model, as both file formats need them."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    rope_theta: float
    norm_eps: float
    vocabulary: int


class GgufFile:
    """A GGUF file, opened by memory map; tensors are dequantised one at a time.

    Args:
        path: the file.

    Raises:
        EngineError: it is missing, not GGUF, cut short or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        gguf = import_gguf()
        check_magic(path)
        try:
            self._reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
            raise EngineError(
                f"{path} is cut short or damaged ({type(error).__name__}: {error}); its size is "
                f"{path.stat().st_size} bytes; fetch or convert it again"
            ) from None

    def value(self, key: str, default: Any = None) -> Any:
        """Return one metadata value, or the default where the file does not have it."""
        found = self._reader.get_field(key)
        return default if found is None else found.contents()

    def _need(self, key: str) -> Any:
        value = self.value(key)
        if value is None:
            raise EngineError(f"{self.path}: the metadata key {key!r} is missing; convert it again")
        return value

    @property
    def architecture(self) -> str:
        """The model's architecture, such as ``llama``."""
        return str(self._need("general.architecture"))

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """The names of all tensors, in the file's order."""
        return tuple(t.name for t in self._reader.tensors)

    @property
    def parameters(self) -> int:
        """How many numbers all tensors hold together."""
        return sum(int(t.n_elements) for t in self._reader.tensors)

    def end_token(self) -> str | None:
        """Return the token that ends an answer, or None where the file names none."""
        tokens = self.value("tokenizer.ggml.tokens", ())
        template = self.value("tokenizer.chat_template")
        eos = end_of_turn(tokens, template, eos=self.value("tokenizer.ggml.eos_token_id"))
        return tokens[eos] if eos is not None and eos < len(tokens) else None

    def tensor(self, name: str) -> Array:
        """Return a tensor as float32 in the usual order of axes (outputs, inputs).

        Raises:
            EngineError: no such tensor, or its type cannot be dequantised.
        """
        gguf = import_gguf()
        for found in self._reader.tensors:
            if found.name == name:
                try:
                    values: Array = gguf.quants.dequantize(found.data, found.tensor_type)
                except NotImplementedError:
                    raise EngineError(
                        f"{self.path}: tensor {name} has the type {found.tensor_type.name}, which "
                        "cannot be read back; use a file of type F16, Q8_0, Q4_1 or Q4_K_M"
                    ) from None
                return values.astype("float32", copy=False)
        raise EngineError(f"{self.path}: no tensor {name!r}; convert the model again")

    def shape(self) -> LlamaShape:
        """Return the model's sizes.

        Raises:
            EngineError: it is not a Llama, or a size is missing.
        """
        if self.architecture != "llama":
            raise EngineError(
                f"{self.path}: architecture {self.architecture!r}; only 'llama' can be exported to "
                "safetensors; use the model's original checkpoint"
            )
        heads, hidden = (
            int(self._need("llama.attention.head_count")),
            int(self._need("llama.embedding_length")),
        )
        tokens = self._need("tokenizer.ggml.tokens")
        return LlamaShape(
            layers=int(self._need("llama.block_count")),
            hidden=hidden,
            feed_forward=int(self._need("llama.feed_forward_length")),
            heads=heads,
            kv_heads=int(self.value("llama.attention.head_count_kv", heads)),
            head_size=int(self.value("llama.rope.dimension_count", hidden // heads)),
            context=int(self._need("llama.context_length")),
            rope_theta=float(self.value("llama.rope.freq_base", 10000.0)),
            norm_eps=_clean(float(self._need("llama.attention.layer_norm_rms_epsilon"))),
            vocabulary=len(tokens),
        )

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary, with the end token that the chat template really uses.

        Raises:
            EngineError: it is not a byte-level BPE vocabulary.
        """
        kind = self._need("tokenizer.ggml.model")
        if kind != "gpt2":
            raise EngineError(
                f"{self.path}: its tokenizer is of the kind {kind!r}; only byte-level BPE ('gpt2') "
                "can be exported; use the model's original checkpoint"
            )
        tokens = tuple(self._need("tokenizer.ggml.tokens"))
        template = self.value("tokenizer.chat_template")
        eos = end_of_turn(tokens, template, eos=self.value("tokenizer.ggml.eos_token_id"))
        return Vocabulary(
            tokens=tokens,
            kinds=tuple(self.value("tokenizer.ggml.token_type", [1] * len(tokens))),
            merges=tuple(self._need("tokenizer.ggml.merges")),
            pre=self.value("tokenizer.ggml.pre", "gpt-2"),
            bos=self.value("tokenizer.ggml.bos_token_id"),
            eos=eos,
            pad=eos,
            unk=self.value("tokenizer.ggml.unknown_token_id"),
            add_bos=bool(self.value("tokenizer.ggml.add_bos_token", False)),
            chat_template=template,
        )


def _clean(value: float) -> float:
    """Return a float32's shortest decimal: 9.999999747378752e-06 was written as 1e-05."""
    return float(f"{value:.6g}")


def check_magic(path: Path) -> None:
    """Check that a file is there, readable and begins as a GGUF file does.

    Raises:
        EngineError: it does not.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(4)
    except FileNotFoundError:
        raise EngineError(f"there is no file {path}; give a GGUF file or a model folder") from None
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}") from None
    if head != MAGIC:
        raise EngineError(
            f"{path} is not a GGUF file: it begins with {head!r}, a GGUF file with {MAGIC!r}; "
            "accepted are a .gguf file or a folder with config.json and *.safetensors"
        )
