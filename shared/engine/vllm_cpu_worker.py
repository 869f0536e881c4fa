"""vLLM's worker for CPU, with a fix for seeded requests with prompts of several steps, and one
for LoRA (`vllm_cpu_lora`).

A step that ends within a prompt samples a token that is thrown away, and vLLM takes the draw back
by the offset of the request's generator. A generator on CPU has no offset: vLLM 0.32 raises there,
and the engine core ends with all its requests.
"""

from typing import Any

import numpy as np
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

from shared.engine.vllm_cpu_lora import leave_rows_without_adapter


class SeededCpuRunner(CPUModelRunner):
    """Takes a draw back by the generator's whole state."""

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        before = {at: self.input_batch.generators[at].get_state() for at in self._unwanted()}
        output = super()._sample(*args, **kwargs)
        for at, state in before.items():
            self.input_batch.generators[at].set_state(state)
        return output

    def _bookkeeping_sync(self, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's, with the generators hidden that have taken their draw back already."""
        generators, unwanted = self.input_batch.generators, self._unwanted()
        self.input_batch.generators = {
            at: one for at, one in generators.items() if at not in unwanted
        }
        try:
            return super()._bookkeeping_sync(*args, **kwargs)
        finally:
            self.input_batch.generators = generators

    def _unwanted(self) -> set[int]:
        """Rows with a generator of which this step's token is thrown away."""
        mask = self.discard_request_mask.np[: self.input_batch.num_reqs]
        return {int(at) for at in np.nonzero(mask)[0] if int(at) in self.input_batch.generators}


class SeededCpuWorker(CPUWorker):
    """vLLM's, with the runner above; its second runner needs Triton and stays as it is."""

    def init_device(self) -> None:
        super().init_device()
        if self.vllm_config.lora_config is not None:
            leave_rows_without_adapter()
        if type(self.model_runner) is CPUModelRunner:
            self.model_runner.__class__ = SeededCpuRunner
