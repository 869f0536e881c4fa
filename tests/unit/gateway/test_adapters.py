from vllm.lora.request import LoRARequest

from services.gateway.adapters import fleet_wide, for_request


def adapter(name: str = "poet", path: str = "/poet", number: int = 1) -> LoRARequest:
    return LoRARequest(name, number, path)


def test_gateways_that_count_by_themselves_give_an_adapter_the_same_number() -> None:
    assert fleet_wide(adapter(number=1)).lora_int_id == fleet_wide(adapter(number=7)).lora_int_id


def test_another_adapter_has_another_number() -> None:
    numbers = {
        fleet_wide(one).lora_int_id
        for one in (adapter(), adapter(name="judge"), adapter(path="/poet-2"))
    }

    assert len(numbers) == 3
    assert all(0 < one < 2**31 for one in numbers)


def test_a_request_never_loads_its_adapter_anew() -> None:
    reloaded = LoRARequest("poet", 1, "/poet", load_inplace=True)
    asked = for_request(reloaded)

    assert fleet_wide(reloaded).load_inplace
    assert asked is not None
    assert not asked.load_inplace
    assert asked.lora_int_id == fleet_wide(reloaded).lora_int_id
    assert for_request(None) is None
