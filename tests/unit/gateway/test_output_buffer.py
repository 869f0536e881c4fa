from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs

from services.gateway.output_buffer import OutputBuffer


@given(st.lists(st.sampled_from([None, "v1", "v2"]), min_size=1, max_size=20))
async def test_nothing_is_lost_reordered_or_given_other_weights(
    versions: list[str | None],
) -> None:
    buffer = OutputBuffer()
    for at, version in enumerate(versions):
        output = EngineCoreOutput(f"r{at}", [at])
        buffer.put(EngineCoreOutputs(outputs=[output], timestamp=1.0, weight_version=version))

    taken: list[tuple[int, str | None]] = []
    while len(taken) < len(versions):
        outputs = await buffer.get()
        taken += [(one.new_token_ids[0], outputs.weight_version) for one in outputs.outputs]

    assert taken == list(enumerate(versions))


async def test_what_waits_is_taken_at_once() -> None:
    buffer = OutputBuffer()
    for at in range(3):
        buffer.put(EngineCoreOutputs(outputs=[EngineCoreOutput("r", [at])], timestamp=1.0))

    outputs = await buffer.get()

    assert len(outputs.outputs) == 3
