"""Measures the gateway beside its engine asked directly, and against a stub engine."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.bench.answers import Answer
from services.bench.compare import Ask, Comparison, compare, turns
from services.bench.engine_client import EngineClient, engine_client
from services.bench.gateway_cpu import CpuPerRequest, Server, cpu_in_turns, pid_of
from services.bench.gateway_options import GatewayBenchOptions
from services.bench.http_client import HttpClient, http_session
from services.bench.load import ClosedLoop, Load
from services.bench.parts import ROUTER, SERVED_NAME, STOCK, Parts
from services.bench.processes import running
from services.bench.prompts import Prompt, texts
from services.node.plan import Part
from shared.clock import Clock, MonotonicClock

GATEWAY, DIRECT = "gateway", "direct"
STREAMING, WHOLE = "gateway_streaming", "gateway_whole"
_DESCRIPTION_REQUESTS = 8  # per worker: so many connections meet each of them, most likely
_ASK_EVERY_S = 0.25
_STEP_MS = 5.0
_STUB_PROMPT = tuple(range(10, 42))  # tokens, so that nothing is tokenized

Loads = Mapping[str, list[Load]]  # by what was asked, in the order of the loads


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clients:
    gateway: HttpClient
    stock: HttpClient
    router: HttpClient
    direct: EngineClient


async def compare_with_engine(parts: Parts) -> list[Comparison]:
    """Compares the gateway and its engine asked directly; if wanted, also a stock vLLM server and
    another gateway before it.
    """
    options, clock = parts.options, MonotonicClock()
    started = [parts.planner(), parts.engine(), parts.gateway()]
    started += [parts.stock()] if options.stock else []
    started += [parts.router()] if options.router else []
    async with _clients(parts, started, clock) as clients:
        servers = _servers(options, clients)
        results = []
        for in_flight in options.in_flight:
            wanted = len(servers) * in_flight * turns(options.requests, in_flight)
            prompts = await _prompts(clients.gateway, options.prompt_words, wanted, seed=in_flight)
            results.append(
                await compare(
                    servers, iter(prompts), requests=options.requests, in_flight=in_flight
                )
            )
        return results


async def load_with_stub(parts: Parts, workers: int) -> Loads:
    """Loads a gateway of so many workers more and more; one of a single worker beside the stub."""
    options, clock = parts.options, MonotonicClock()
    started = [parts.planner(), parts.stub(), parts.gateway(workers)]
    async with _clients(parts, started, clock) as clients:
        await _until_settled(clients, workers, clock)
        loops = _loops(options, clients, clock)
        names = loops if workers == 1 else [STREAMING]
        return {
            named(name, workers): [
                await loops[name].run(load, options.stub_seconds) for load in options.stub_in_flight
            ]
            for name in names
        }


async def compare_cpu(parts: Parts) -> dict[str, CpuPerRequest]:
    """CPU of the gateway's process, before a stub engine, and of the stock server's frontend."""
    options, clock = parts.options, MonotonicClock()
    stub = parts.stub(_STEP_MS)  # no two tokens come together, as from the stock server's engine
    started = [parts.planner(), stub, parts.gateway(), parts.stock_frontend()]
    async with _clients(parts, started, clock) as clients:
        await _until_settled(clients, 1, clock)
        tokens = options.stub_output_tokens
        servers = {
            GATEWAY: Server(
                ask=lambda: clients.gateway.stream(_STUB_PROMPT, tokens),
                pid=pid_of(parts.gateway().command),
            ),
            STOCK: Server(
                ask=lambda: clients.stock.stream(_STUB_PROMPT, tokens),
                pid=pid_of(parts.stock_frontend().command),
            ),
        }
        return await cpu_in_turns(servers, options.cpu_requests, clock)


def named(kind: str, workers: int) -> str:
    return kind if workers == 1 else f"{kind}_{workers}_workers"


async def _until_settled(clients: _Clients, workers: int, clock: Clock) -> None:
    """Waits until all workers serve and have made their OpenAPI page, which takes seconds."""
    while await clients.gateway.metric("slos_gateway_workers") != workers:
        await clock.sleep(_ASK_EVERY_S)
    for _ in range(_DESCRIPTION_REQUESTS * workers):
        await clients.gateway.get_alone("/openapi.json")


@asynccontextmanager
async def _clients(parts: Parts, started: list[Part], clock: Clock) -> AsyncIterator[_Clients]:
    limit_s = parts.options.answer_limit_s
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(started, clock, parts.options.start_limit_s))
        session = await stack.enter_async_context(http_session(limit_s))
        direct = engine_client(parts.engine_address, clock.now, limit_s)

        def http(url: str) -> HttpClient:
            return HttpClient(session=session, url=url, model=SERVED_NAME, now=clock.now)

        yield _Clients(
            gateway=http(parts.gateway_url),
            stock=http(parts.stock_url),
            router=http(parts.router_url),
            direct=await stack.enter_async_context(direct),
        )


def _servers(options: GatewayBenchOptions, clients: _Clients) -> dict[str, Ask]:
    tokens = options.output_tokens
    servers: dict[str, Ask] = {
        GATEWAY: lambda prompt: clients.gateway.stream(prompt.text, tokens),
        DIRECT: lambda prompt: clients.direct.stream(prompt.token_ids, tokens),
    }
    if options.stock:
        servers[STOCK] = lambda prompt: clients.stock.stream(prompt.text, tokens)
    if options.router:
        servers[ROUTER] = lambda prompt: clients.router.stream(prompt.text, tokens)
    return servers


async def _prompts(gateway: HttpClient, words: int, count: int, *, seed: int) -> list[Prompt]:
    """Prompts with tokens, made beforehand: an engine asked directly reads tokens."""
    drawn = texts(words, seed)
    return [
        Prompt(text=text, token_ids=tuple(await gateway.tokenize(text)))
        for text in (next(drawn) for _ in range(count))
    ]


def _loops(options: GatewayBenchOptions, clients: _Clients, clock: Clock) -> dict[str, ClosedLoop]:
    tokens = options.stub_output_tokens

    async def stream() -> Answer:
        return await clients.gateway.stream(_STUB_PROMPT, tokens)

    async def whole() -> Answer:
        return await clients.gateway.whole(_STUB_PROMPT, tokens)

    async def direct() -> Answer:
        return await clients.direct.stream(_STUB_PROMPT, tokens)

    async def unknown() -> None:
        return None

    cpu = clients.gateway.cpu_seconds
    return {
        STREAMING: ClosedLoop(ask=stream, cpu_seconds=cpu, now=clock.now),
        WHOLE: ClosedLoop(ask=whole, cpu_seconds=cpu, now=clock.now),
        DIRECT: ClosedLoop(ask=direct, cpu_seconds=unknown, now=clock.now),
    }
