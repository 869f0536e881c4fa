"""Why vLLM did not start, in one line. Pure.

vLLM fails in one of several processes, with a traceback of its own in each, and what it raises in
the host only says that something failed elsewhere.
"""

import re
from typing import Final

RECORD: Final = "\x1e"  # begins each record of the log: a message, then its traceback
_TRACEBACK: Final = "Traceback (most recent call last):"
_CHAINED: Final = ("During handling of the above", "The above exception was the direct cause")
_RAISED: Final = re.compile(r"[A-Za-z_][\w.]*(?:: |$)")
# Said by a process about the failure of another one.
_ELSEWHERE: Final = ("WorkerProc initialization failed", "Engine core initialization failed")
# What pydantic puts around the words of a validator.
_WRAPPING: Final = re.compile(r"^ValidationError: .*? error, |\s*\[type=.*$")
_LONGEST: Final = 400  # characters of a reason

_MORE_KV: Final = (
    "lower --max-model-len, or give it more memory: --gpu-memory-utilization, --kv-cache-gib"
)
_LESS_GPU = "lower --gpu-memory-utilization or --max-step-tokens, or raise --tensor-parallel-size"
_FREE_GPU = "end what holds the GPU's memory (see nvidia-smi), or lower --gpu-memory-utilization"
_MORE_GPUS = (
    "let this engine see as many GPUs (CUDA_VISIBLE_DEVICES) as --tensor-parallel-size says"
)
_HEADS = "take a --tensor-parallel-size that divides the number of attention heads"
_MODEL = "check --model; a gated model needs HF_TOKEN"
_PACKAGE = "install what is missing into the environment of this engine"
# What to do, by what vLLM or a library below it says. The first that fits counts.
_CURES: Final = (
    (r"CUDA out of memory|OutOfMemoryError", _LESS_GPU),
    (r"Free memory on device", _FREE_GPU),
    (r"greater than the derived max_model_len", "lower --max-model-len"),
    (r"KV cache|cache blocks|max seq len", _MORE_KV),
    (r"number of available (GPUs|devices)|[Ww]orld size", _MORE_GPUS),
    (r"divisible by tensor parallel", _HEADS),
    (r"compute capability|[Bb]float16", "take --dtype float16, or float32 on CPU"),
    (r"gated|Repository Not Found|not a valid model identifier|Can't load the config", _MODEL),
    (r"No module named|cannot import|ImportError", _PACKAGE),
    (r"driver version is insufficient|NVML|No CUDA GPUs", "see what `slos-serve doctor` says"),
    (r"Address already in use", "free that port, or give this engine another"),
)
_ANY_CURE: Final = "change the option that this is about; the log has all of vLLM's words"


def start_error(model: str, error: BaseException, log: str = "") -> str:
    """One line: what vLLM said of its failed start, and what to do.

    Args:
        model: Folder or name of the model.
        error: What was raised in this process.
        log: What vLLM's processes logged as errors, each record after `RECORD`.
    """
    reason = root_cause(log) or one_line(f"{type(error).__name__}: {error}")
    return f"vLLM did not start {model}: {reason} (cure: {cure_of(reason)})"


def cure_of(reason: str) -> str:
    return next((cure for sign, cure in _CURES if re.search(sign, reason)), _ANY_CURE)


def root_cause(log: str) -> str:
    """The exception that came first, as `ValueError: words`; empty where the log holds none.

    Of exceptions that were raised while others were handled the last one counts: it has the words
    meant for people.
    """
    causes = [one for one in _exceptions(log) if not any(sign in one for sign in _ELSEWHERE)]
    return one_line(causes[0]) if causes else ""


def _exceptions(log: str) -> list[str]:
    """The exception of each traceback, chained ones as one, in the order of the log."""
    found: list[str] = []
    chained = False
    for part in log.split(_TRACEBACK)[1:]:
        raised = _raised(part.splitlines())
        if chained and found:
            found[-1] = raised
        else:
            found.append(raised)
        chained = any(sign in part for sign in _CHAINED)
    return [one for one in found if one]


def _raised(lines: list[str]) -> str:
    """The words after the stack: the first line that is not indented, and those of its message."""
    at = next((i for i, line in enumerate(lines) if line and not line[0].isspace()), len(lines))
    if at == len(lines) or not _RAISED.match(lines[at]):
        return ""
    message = [lines[at]]
    for line in lines[at + 1 :]:
        if not line.strip() or line.startswith(RECORD):
            break
        message.append(line)
    return " ".join(message)


def one_line(words: str) -> str:
    """Without line breaks and what pydantic puts around them, cut to a length that is readable."""
    line = _WRAPPING.sub("", " ".join(words.split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
