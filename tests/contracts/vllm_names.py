"""What our sources use of vLLM, and what a tree of vLLM's sources has. Imports neither.

A name is written `module:Name` or `module:Class.member`. Its form is what a caller depends on: the
parameters of a function, or the word `class`, `property`, `field` or `value`.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

# Members that our code reads from objects that vLLM hands to it; imports, overridden methods and
# inherited members are found by reading our own classes.
HANDED: Final[Mapping[str, str]] = {
    "vllm.v1.request:Request": "request_id status num_tokens num_computed_tokens spec_token_ids "
    "num_output_placeholders drop_stale_output is_prefill_chunk sampling_params max_tokens "
    "priority prompt_token_ids structured_output_request kv_transfer_params lora_request "
    "num_prompt_tokens num_stale_output_tokens",
    "vllm.v1.structured_output.request:StructuredOutputRequest": "_grammar",
    "vllm.v1.structured_output:StructuredOutputManager": "accept_tokens",
    "vllm.v1.core.sched.output:SchedulerOutput": "num_scheduled_tokens scheduled_new_reqs "
    "scheduled_cached_reqs scheduled_spec_decode_tokens total_num_scheduled_tokens",
    "vllm.v1.core.sched.output:CachedRequestData": "resumed_req_ids req_ids num_computed_tokens",
    "vllm.v1.core.sched.output:NewRequestData": "req_id num_computed_tokens",
    "vllm.v1.outputs:ModelRunnerOutput": "sampled_token_ids req_id_to_index req_ids",
    "vllm.v1.core.kv_cache_manager:KVCacheManager": "block_pool get_computed_blocks get_blocks "
    "enable_caching num_kv_cache_groups",
    "vllm.v1.core.kv_cache_manager:KVCacheBlocks": "blocks",
    "vllm.v1.core.kv_cache_utils:KVCacheBlock": "ref_cnt",
    "vllm.v1.core.block_pool:BlockPool": "get_num_free_blocks",
    "vllm.v1.core.sched.request_queue:FCFSRequestQueue": "add_request",
    "vllm.v1.kv_cache_interface:KVCacheConfig": "num_blocks kv_cache_groups kv_tp_replicas",
    "vllm.v1.kv_cache_interface:KVCacheGroupSpec": "layer_names kv_cache_spec host_resident",
    "vllm.v1.kv_cache_interface:KVCacheSpec": "block_size page_size_bytes max_memory_usage_bytes",
    "vllm.v1.kv_cache_interface:MambaSpec": "mamba_cache_mode",
    "vllm.v1.engine.core_client:AsyncMPClient": "add_request_async abort_requests_async "
    "get_output_async reset_prefix_cache_async add_lora_async shutdown resources",
    "vllm.lora.request:LoRARequest": "lora_name lora_int_id lora_path load_inplace",
    "vllm.config.lora:LoRAConfig": "max_loras max_lora_rank",
    "vllm.v1.engine.core_client:BackgroundResources": "engine_manager",
    "vllm.v1.engine.utils:CoreEngineProcManager": "processes",
    "vllm.v1.engine:EngineCoreRequest": "request_id prompt_token_ids mm_features sampling_params "
    "pooling_params arrival_time lora_request cache_salt data_parallel_rank external_req_id "
    "resumable priority",
    "vllm.v1.engine:EngineCoreOutput": "request_id new_token_ids finish_reason kv_transfer_params",
    "vllm.v1.engine:EngineCoreOutputs": "outputs scheduler_stats",
    "vllm.v1.engine.output_processor:OutputProcessor": "abort_requests request_states",
    "vllm.v1.engine.output_processor:RequestState": "queue",
    "vllm.v1.executor:Executor": "get_class",
    "vllm.v1.metrics.loggers:StatLoggerManager": "record log_engine_initialized",
    "vllm.engine.arg_utils:AsyncEngineArgs": "create_engine_config",
    "vllm.config.speculative:SpeculativeConfig": "num_speculative_tokens",
}
_PACKAGES: Final = ("services", "shared")
# Subclasses of ours that are subclassed in another file.
_OURS: Final = {"SteeredScheduler": ("vllm.v1.core.sched.async_scheduler", "AsyncScheduler")}
_MOST_HOPS: Final = 12  # of one re-export to the next

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class MissingNameError(Exception):
    """The tree of sources has no such name."""


# -- what vLLM has -------------------------------------------------------------------------------


class Sources:
    """A tree of vLLM's sources: the folder that is the package `vllm`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def form(self, name: str) -> str:
        """Raises MissingNameError."""
        module, _, path = name.partition(":")
        if not path:
            return _form(self._tree(module))
        top, _, member = path.partition(".")
        found_in, node = self.find(module, top)
        if not member:
            return _form(node)
        if not isinstance(node, ast.ClassDef):
            raise MissingNameError(f"{module}:{top} is no class")
        return self._member(found_in, node, member)

    def find(self, module: str, name: str) -> tuple[str, ast.AST]:
        """Where a name is defined, through re-exports. Raises MissingNameError."""
        for _ in range(_MOST_HOPS):
            node = next(_definitions(self._tree(module), name), None)
            if node is None:
                return self._submodule(module, name)
            if not isinstance(node, ast.ImportFrom):
                return module, node
            module, name = _target(node, module, name, self._is_package(module))
        raise MissingNameError(f"{module}:{name} is imported in a circle")

    def _submodule(self, module: str, name: str) -> tuple[str, ast.AST]:
        try:
            return f"{module}.{name}", self._tree(f"{module}.{name}")
        except MissingNameError:
            raise MissingNameError(f"vLLM has no {name} in {module}") from None

    def has_member(self, module: str, class_name: str, member: str) -> bool:
        try:
            self.form(f"{module}:{class_name}.{member}")
        except MissingNameError:
            return False
        return True

    def _member(self, module: str, node: ast.ClassDef, member: str) -> str:
        for one in self._bases(module, node):
            if form := _own_member(one, member):
                return form
        raise MissingNameError(f"{node.name} of {module} has no {member}")

    def _bases(self, module: str, node: ast.ClassDef) -> Iterator[ast.ClassDef]:
        """The class itself, then those above it."""
        yield node
        for base in node.bases:
            name = base.value if isinstance(base, ast.Subscript) else base
            if not isinstance(name, ast.Name):
                continue
            try:
                found_in, found = self.find(module, name.id)
            except MissingNameError:
                continue  # a class of another package
            if isinstance(found, ast.ClassDef):
                yield from self._bases(found_in, found)

    def _is_package(self, module: str) -> bool:
        return self._path(module).is_dir()

    def _path(self, module: str) -> Path:
        return self._folder.joinpath(*module.split(".")[1:])

    def _tree(self, module: str) -> ast.Module:
        path = self._path(module)
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module.split(".", maxsplit=1)[0] != "vllm" or not file.is_file():
            raise MissingNameError(f"vLLM has no module {module}")
        return _parsed(file)


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _definitions(tree: ast.AST, name: str) -> Iterator[ast.AST]:
    """Also what stands in `if` and `try` at the top level."""
    for node in ast.iter_child_nodes(tree):
        if name in _defined(node):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            yield from _definitions(node, name)
    yield from _lazy(tree, name)


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, Definition):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return _names(node)
    return _assigned(node) if isinstance(node, ast.Assign | ast.AnnAssign) else []


def _lazy(tree: ast.AST, name: str) -> Iterator[ast.AST]:
    """vLLM's own package says in a dictionary where its names are: `.module:Name`."""
    for node in ast.walk(tree):
        pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
        for key, value in pairs:
            words = (getattr(key, "value", None), str(getattr(value, "value", "")))
            if words[0] == name and ":" in words[1]:
                module, _, real = words[1].partition(":")
                yield ast.ImportFrom(module.lstrip("."), [ast.alias(real, name)], level=1)


def _names(node: ast.ImportFrom) -> list[str]:
    return [one.asname or one.name for one in node.names]


def _assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [one.id for one in targets if isinstance(one, ast.Name)]


def _target(node: ast.ImportFrom, module: str, name: str, is_package: bool) -> tuple[str, str]:
    real = next(one.name for one in node.names if (one.asname or one.name) == name)
    if not node.level:
        return node.module or "", real
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *(node.module or "").split(".")]).rstrip("."), real


def _form(node: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    if isinstance(node, ast.Module):
        return "module"
    return _parameters(node) if isinstance(node, _Function) else "value"


def _own_member(node: ast.ClassDef, member: str) -> str | None:
    for one in node.body:
        if isinstance(one, _Function) and one.name == member:
            words = {ast.unparse(each).split(".")[-1] for each in one.decorator_list}
            return "property" if words & {"property", "cached_property"} else _parameters(one)
        if isinstance(one, ast.Assign | ast.AnnAssign) and member in _assigned(one):
            return "field"
    return "field" if member in _set_in_code(node) else None


@cache
def _set_in_code(node: ast.ClassDef) -> frozenset[str]:
    """Members that its methods assign to."""
    attributes = (one for one in ast.walk(node) if isinstance(one, ast.Attribute))
    stored = (one for one in attributes if isinstance(one.ctx, ast.Store))
    return frozenset(one.attr for one in stored if _is_self(one.value))


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _parameters(node: _Function) -> str:
    """Names, kinds and which have a default; `async` before, where the caller has to wait."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    with_default = len(plain) - len(arguments.defaults)
    words = [one.arg + "=" * (at >= with_default) for at, one in enumerate(plain)]
    if arguments.vararg:
        words.append(f"*{arguments.vararg.arg}")
    elif arguments.kwonlyargs:
        words.append("*")
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        words.append(one.arg + "=" * (default is not None))
    if arguments.kwarg:
        words.append(f"**{arguments.kwarg.arg}")
    return "async " * isinstance(node, ast.AsyncFunctionDef) + f"({', '.join(words)})"


# -- what we use ---------------------------------------------------------------------------------


def used_names(root: Path, vllm: Sources) -> list[str]:
    """Every name of vLLM that the sources below `root` use, sorted."""
    names = {f"{owner}.{one}" for owner, members in HANDED.items() for one in members.split()}
    for package in _PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            text = file.read_text()
            if "vllm" in text:  # our modules that stand on it have it in their names
                names |= set(_imported(_parsed(file)))
                names |= set(_inherited(_parsed(file), vllm))
    return sorted(names)


def _imports(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    for node in _classes_and_imports(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
            yield node


@cache
def _classes_and_imports(tree: ast.AST) -> list[ast.ClassDef | ast.ImportFrom]:
    return [one for one in ast.walk(tree) if isinstance(one, ast.ClassDef | ast.ImportFrom)]


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in _imports(tree):
        yield from (f"{node.module}:{one.name}" for one in node.names)


def _inherited(tree: ast.AST, vllm: Sources) -> Iterator[str]:
    """Members of vLLM's classes that our subclasses in this file override or use."""
    origins = _OURS | {
        one.asname or one.name: (str(node.module), one.name)
        for node in _imports(tree)
        for one in node.names
    }
    for node in _classes_and_imports(tree):
        bases = node.bases if isinstance(node, ast.ClassDef) else []
        for base in bases:
            if isinstance(base, ast.Name) and base.id in origins:
                module, name = origins[base.id]
                members = (one for one in _members_used(node) if vllm.has_member(module, name, one))
                yield from (f"{module}:{name}.{one}" for one in members)


def _members_used(node: ast.AST) -> set[str]:
    used = {one.name for one in ast.iter_child_nodes(node) if isinstance(one, _Function)}
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and ast.unparse(one.value) in ("self", "super()"):
            used.add(one.attr)
    return used if "super().__init__" in ast.unparse(node) else used - {"__init__"}
