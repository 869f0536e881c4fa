"""MLPerf Inference's Llama-3.1-8B as a load: summaries of news, one request each.

Targets are those of loadgen's `mlperf.conf` for the interactive scenario, which 99 % of requests
must keep. Lengths are those that MLCommons publishes of its data set, CNN/DailyMail: prompts of 778
tokens on average and at most 2,540, answers of 73 and at most 128; the deviations are our choice.
"""

from typing import Final

from shared.workloads.applications import Answer, Application, Kind
from shared.workloads.arrivals import POISSON
from shared.workloads.lengths import log_normal

SHARE: Final = 0.99
INTERACTIVE: Final = Application(
    name="MLPerf Llama-3.1-8B interactive",
    kinds=(
        Kind(
            class_name="summary",
            ttft_s=0.5,
            prompt=log_normal(median=700, sigma=0.46, least=64, most=2540),
            answers=(
                Answer(
                    stage="answer",
                    tokens=log_normal(median=70, sigma=0.3, least=16, most=128),
                    tpot_s=0.03,
                ),
            ),
            arrivals=POISSON,
        ),
    ),
)
