import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field

from shared.errors import ConfigError
from shared.option_table import describe
from shared.options import load, option


class Colour(StrEnum):
    RED = "red"
    DARK_BLUE = "dark_blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    tpot_s: float | None = None
    colour: Colour = Colour.RED


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    host: str = option("127.0.0.1", help="where to listen")
    max_step_tokens: int = option(2048, help="most tokens | per step")
    share: float = option(0.5, help="a share")
    limit: int | None = option(None, help="a limit")
    port: Annotated[int, Field(ge=1)] | None = option(None, help="a port")
    eager: bool = option(False, help="no graphs")
    colour: Colour = option(Colour.RED, help="a colour")
    names: tuple[str, ...] = option((), help="some names")
    extra: dict[str, Any] = option({}, help="anything")
    paces: dict[str, Pace] = option({}, help="paces by name")


def read(
    argv: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    yaml_file: Path | None = None,
) -> Options:
    flags = [*argv, *(["--config", str(yaml_file)] if yaml_file else [])]
    return load(Options, section="planner", argv=flags, environ=environ or {}, prog="test")


def file(folder: Path, text: str) -> Path:
    path = folder / "serve.yaml"
    path.write_text(text)
    return path


words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1).filter(
    lambda word: word != "none" and not word.startswith("--")
)
plain_words = st.text("abc-_ 019", min_size=1).map(str.strip).filter(bool)
numbers = st.floats(allow_nan=False, allow_infinity=False)
pace = st.builds(Pace, tpot_s=st.none() | numbers, colour=st.sampled_from(Colour))
options = st.builds(
    Options,
    host=words,
    max_step_tokens=st.integers(),
    share=numbers,
    limit=st.none() | st.integers(),
    eager=st.booleans(),
    colour=st.sampled_from(Colour),
    names=st.lists(plain_words.filter(lambda word: not word.startswith("--"))).map(tuple),
    extra=st.dictionaries(plain_words, st.integers() | st.booleans() | numbers | plain_words),
    paces=st.dictionaries(plain_words, pace),
)


def as_texts(wanted: Options) -> dict[str, str]:
    texts = {"eager": str(wanted.eager).lower(), "names": ",".join(wanted.names)}
    for name in ("host", "max_step_tokens", "share", "colour"):
        texts[name] = str(getattr(wanted, name))
    texts["limit"] = "none" if wanted.limit is None else str(wanted.limit)
    return texts | {name: json.dumps(asdict(wanted)[name]) for name in ("extra", "paces")}


@given(wanted=options)
def test_what_flags_say_is_what_is_read(wanted: Options) -> None:
    flags = [f"--{name.replace('_', '-')}={text}" for name, text in as_texts(wanted).items()]
    assert read(flags) == wanted


@given(wanted=options)
def test_what_variables_say_is_what_is_read(wanted: Options) -> None:
    assert (
        read((), {f"SLOS_PLANNER_{name.upper()}": text for name, text in as_texts(wanted).items()})
        == wanted
    )


class Quoting(yaml.SafeDumper):
    """Quotes every text: YAML 1.1, as PyYAML writes it, takes `0E0` for one, YAML 1.2 does not."""


Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@given(wanted=options)
@example(wanted=Options(host="0E0"))
def test_what_yaml_says_is_what_is_read(
    wanted: Options, tmp_path_factory: pytest.TempPathFactory
) -> None:
    section = {"planner": json.loads(json.dumps(asdict(wanted)))}
    text = yaml.dump(section, Dumper=Quoting, allow_unicode=True)
    path = file(tmp_path_factory.mktemp("options"), text)
    assert read(yaml_file=path) == wanted


@given(
    flag=st.none() | st.integers(),
    variable=st.none() | st.integers(),
    key=st.none() | st.integers(),
)
def test_a_flag_binds_over_a_variable_over_yaml_over_the_default(
    flag: int | None,
    variable: int | None,
    key: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    text = "planner: {}" if key is None else f"planner: {{max_step_tokens: {key}}}"
    path = file(tmp_path_factory.mktemp("options"), text)
    argv = [] if flag is None else ["--max-step-tokens", str(flag)]
    environ = {"SLOS_CONFIG": str(path)}
    if variable is not None:
        environ["SLOS_PLANNER_MAX_STEP_TOKENS"] = str(variable)

    first = next(one for one in (flag, variable, key, 2048) if one is not None)
    assert read(argv, environ).max_step_tokens == first


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--max-step-token", "5"],
            "unknown flag --max-step-token; did you mean --max-step-tokens?",
        ),
        (["--no-eagre"], "unknown flag --no-eagre; did you mean --no-eager?"),
        (["--bad"], "unknown flag --bad; did you mean --share?"),
        (["serve"], "unexpected 'serve': every option starts with --"),
        (["--host"], "--host needs a value: --host VALUE or --host=VALUE"),
        (["--host", "--eager"], "--host needs a value: --host VALUE or --host=VALUE"),
        (["--host=a", "--host=b"], "--host is given twice: keep one"),
        (["--eager", "--no-eager"], "--no-eager is given twice: keep one"),
        (["--max-step-tokens=five"], "--max-step-tokens: read 'five', allowed is a whole number"),
        (["--share=nan"], "--share: read 'nan', allowed is a finite number"),
        (["--limit=1.5"], "--limit: read '1.5', allowed is a whole number, or none"),
        (
            ["--port=0"],
            "--port: read '0', allowed is a whole number, or none (should be greater than ",
        ),
        (["--eager=maybe"], "--eager: read 'maybe', allowed is true or false"),
        (["--colour=pink"], "--colour: read 'pink', allowed is one of red, dark_blue"),
        (["--extra=5"], "--extra: read 5, allowed is a mapping, each value anything"),
        (["--extra={"], "--extra, line 1: not YAML: "),
        (["--paces={a: {tpot: 1}}"], "--paces, a: unknown key tpot; did you mean tpot_s?"),
        (
            ["--paces={a: {tpot_s: fast}}"],
            "--paces, a, tpot_s: read 'fast', allowed is a number, or none",
        ),
    ],
)
def test_a_wrong_flag_is_answered_in_one_line_with_the_cure(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(argv)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("planer: {}", "unknown section planer in FILE; did you mean planner?"),
        ("planner: {hots: a}", "unknown key planner.hots in FILE; did you mean host?"),
        (
            "planner: {max_step_tokens: yes}",
            "planner.max_step_tokens in FILE: read True, allowed is a whole number",
        ),
        (
            "planner: {max_step_tokens: '5'}",
            "planner.max_step_tokens in FILE: read '5', allowed is a whole number",
        ),
        ("planner: {host: off}", "planner.host in FILE: read False, allowed is text"),
        ("planner: {names: a}", "planner.names in FILE: read 'a', allowed is a list, each text"),
        (
            "planner: {share: .inf}",
            "planner.share in FILE: read inf, write dates as text and numbers finite",
        ),
        ("planner:\n  host: a\n  host: b\n", "FILE, line 3: not YAML: the key host is given twice"),
        ("planner: [1]", "planner in FILE: read [1], allowed is a mapping of keys to values"),
        ("planner: {", "FILE, line 1: not YAML: "),
    ],
)
def test_a_wrong_file_is_answered_in_one_line_with_the_cure(
    text: str, message: str, tmp_path: Path
) -> None:
    path = file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read(yaml_file=path)
    assert str(caught.value).startswith(message.replace("FILE", str(path)))
    assert "\n" not in str(caught.value)


def test_a_variable_that_names_no_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="SLOS_PLANNER_HOTS; did you mean SLOS_PLANNER_HOST"):
        read(environ={"SLOS_PLANNER_HOTS": "a"})


def test_variables_and_keys_of_other_services_are_theirs(tmp_path: Path) -> None:
    path = file(tmp_path, "gateway: {anything: 1}\n")
    assert (
        read(environ={"SLOS_GATEWAY_ANYTHING": "1", "SLOS_LOG_LEVEL": "INFO"}, yaml_file=path)
        == Options()
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration file .*gone\.yaml"):
        read(yaml_file=tmp_path / "gone.yaml")


def test_repeated_list_flags_gather() -> None:
    assert read(["--names", "a,b", "--names=c"]).names == ("a", "b", "c")


def test_a_number_with_an_exponent_is_a_number_in_yaml_too(tmp_path: Path) -> None:
    path = file(tmp_path, "planner: {share: 1e-3, paces: {a: {tpot_s: 5e-2}}}")
    expected = replace(Options(), share=0.001, paces={"a": Pace(tpot_s=0.05)})
    assert read(yaml_file=path) == expected


def test_each_load_has_its_own_copy_of_a_default() -> None:
    assert read().extra is not read().extra


def test_an_option_without_default_must_be_given() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Needy:
        model: str

    with pytest.raises(ConfigError, match=r"--model \(or SLOS_NODE_MODEL\) must be given"):
        load(Needy, section="node", argv=[], environ={}, prog="test")


def test_help_names_every_flag_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for name in asdict(Options()):
        assert f"--{name.replace('_', '-')}" in shown
        assert f"SLOS_PLANNER_{name.upper()}" in shown
    assert "default: 2048" in shown


def test_check_ends_after_valid_options_and_reports_invalid_ones() -> None:
    def at_most_9(options: Options) -> None:
        if options.max_step_tokens > 9:
            raise ConfigError("too many")

    def end(words: Sequence[str]) -> Options:
        return load(Options, section="planner", argv=words, environ={}, prog="it", check=at_most_9)

    with pytest.raises(SystemExit) as ended:
        end(["--check", "--max-step-tokens", "9"])
    assert ended.value.code == 0
    for words in (["--check"], []):
        with pytest.raises(ConfigError, match="too many"):
            end(words)
    assert end(["--max-step-tokens", "9"]).max_step_tokens == 9


def test_the_table_for_the_documentation_has_a_row_per_option() -> None:
    rows = describe(Options, "planner").splitlines()
    assert len(rows) == 2 + len(asdict(Options()))
    assert (
        "| `--max-step-tokens`, `planner.max_step_tokens` | `SLOS_PLANNER_MAX_STEP_TOKENS` "
        in rows[3]
    )
    assert rows[3].endswith("| `2048` | most tokens \\| per step |")


@dataclass(frozen=True, slots=True, kw_only=True)
class WithSecret:
    key: str = option("", help="the key", secret=True)
    file: str = option("", help="a file of all sections", variable="SLOS_FILE")


def read_secretly(argv: Sequence[str], environ: Mapping[str, str]) -> WithSecret:
    return load(WithSecret, section="gateway", argv=argv, environ=environ, prog="it")


@pytest.mark.parametrize("words", [["--key", "abc"], ["--key=abc"]])
def test_a_secret_has_no_flag_and_the_error_does_not_repeat_it(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="SLOS_GATEWAY_KEY") as told:
        read_secretly(words, {})
    assert "abc" not in str(told.value)
    assert read_secretly([], {"SLOS_GATEWAY_KEY": "abc"}).key == "abc"


def test_a_variable_that_all_sections_share_stands_for_their_own() -> None:
    assert read_secretly([], {"SLOS_FILE": "/s"}).file == "/s"
    assert read_secretly(["--file", "/t"], {"SLOS_FILE": "/s"}).file == "/t"
    with pytest.raises(ConfigError, match="unknown environment variable SLOS_GATEWAY_FILE"):
        read_secretly([], {"SLOS_GATEWAY_FILE": "/s"})
