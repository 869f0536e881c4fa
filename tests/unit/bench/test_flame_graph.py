from xml.etree import ElementTree as ET

from services.bench.flame_graph import draw, read_stacks

STACKS = [
    "run (loop.py:1);serve (services/a.py:2);send (uvicorn/b.py:3) 6",
    "run (loop.py:1);serve (services/a.py:9);send (uvicorn/b.py:4) 3",
    "run (loop.py:1);serve (services/a.py:2) 1",
    "run (loop.py:1) 50",
    "worker (thread.py:1);wait (thread.py:2) 40",
]
SVG = "{http://www.w3.org/2000/svg}"


def test_a_frame_counts_its_callees_and_its_lines_together() -> None:
    (serve,) = read_stacks(STACKS, "run").callees.values()
    (send,) = serve.callees.values()

    assert (serve.function, serve.file, serve.samples) == ("serve", "services/a.py", 10)
    assert (send.function, send.samples) == ("send", 9)


def test_other_threads_and_the_wait_of_the_start_itself_are_left_out() -> None:
    assert read_stacks(STACKS, "run").samples == 10


def test_a_graph_is_xml_with_widths_by_share_and_no_frame_below_the_least() -> None:
    rare = [*STACKS, "run (loop.py:1);serve (services/a.py:2);<rare> (c.py:1) 10000"]
    rare += ["run (loop.py:1);other (d.py:1) 1"]

    root = ET.fromstring(draw(read_stacks(rare, "run"), "a < b"))

    titles = [one.text for one in root.iter(f"{SVG}title")]
    widths = [float(one.attrib["width"]) for one in root.findall(f"{SVG}g/{SVG}rect")]
    assert titles == [
        "all  100.0 %",
        "serve services/a.py 100.0 %",
        "<rare> c.py 99.9 %",
    ]
    assert widths[0] == 1200.0
    assert root.findtext(f"{SVG}text") == "a < b"
