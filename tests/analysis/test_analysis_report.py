"""The report: one safe file, the same twice, honest where there is nothing to say."""

import json
import re
from html.parser import HTMLParser

import pytest
from synthetic import SEEDS, Fake, four_by_five, two_by_three

from analysis.findings import find
from analysis.plots import theme
from analysis.report.write import write_report
from analysis.study.options import Options
from analysis.study.samples import visible

HOSTILE = (
    "</pre><script>alert(1)</script> {{ 7 * 7 }} \x1b[31m \u202e \u200b &lt; <img src=x onerror=y> ](javascript:x)"
)


def build(studies, name, runs=None):
    if runs is not None:
        studies.write(name, runs)
    page = write_report(find(Options(study=name, output_dir=studies.output_dir)))
    return page, page.read_text()


@pytest.fixture(scope="module")
def two(studies):
    return build(studies, "report-two", two_by_three(response=lambda index: HOSTILE))


@pytest.fixture(scope="module")
def four(studies):
    return build(studies, "report-four", four_by_five())


class Tags(HTMLParser):
    """Checks that what is opened is closed."""

    EMPTY = ("meta", "br", "path", "use", "img", "input", "hr", "rect", "circle")

    def __init__(self):
        super().__init__()
        self.open, self.scripts, self.ids, self.uses = [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.uses += [attributes["href"][1:]] if attributes.get("href", "").startswith("#") else []
        if tag == "script":
            self.scripts.append(attributes)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def parsed(html):
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


@pytest.mark.parametrize("report", ["two", "four"])
def test_one_file_without_network_or_scripts(report, request):
    _, html = request.getfixturevalue(report)
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "url(" not in html.replace("url(#", "")
    assert "default-src 'none'" in html
    tags = parsed(html)
    assert tags.scripts == [{"type": "application/json", "id": "summary"}]
    assert set(tags.uses) <= set(tags.ids)
    assert len(html.encode()) < 400_000
    assert "{{" not in html.replace("{{ 7 * 7 }}", "")


def test_hostile_text_stays_text(two):
    page, html = two
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    for box in ("U+001B", "U+202E", "U+200B"):
        assert box in html
    assert parsed(html).scripts


def test_visible_escapes_and_draws_boxes():
    assert str(visible("a<b\n")) == "a&lt;b\n"
    assert "U+0000" in visible("\0")


@pytest.mark.parametrize("report", ["report-two", "report-four"])
def test_built_twice_it_is_byte_identical(studies, two, four, report):
    home = studies.output_dir / "reports" / report
    before = {path: path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}
    build(studies, report)
    assert before == {path: path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}
    assert len([path for path in before if path.suffix == ".svg"]) >= 9


def test_embedded_summary_is_the_json_file(two):
    page, html = two
    embedded = html.split('id="summary">')[1].split("</script>")[0]
    assert "<" not in embedded
    assert json.loads(embedded) == json.loads(page.with_name("report.json").read_text())


def test_json_keeps_the_contract(two):
    report = json.loads(two[0].with_name("report.json").read_text())
    assert {"study", "generated", "methods", "seeds", "baseline", "headline_metric", "runs", "comparisons", "judge",
            "fairness", "warnings"} <= report.keys()  # fmt: skip
    assert report["generated"] == "2026-11-20T10:57:00+00:00"
    assert {"method", "seed", "status", "path", "metrics", "ledger"} <= report["runs"][0].keys()
    assert report["runs"][0]["ledger"].keys() == {
        "prompts", "completions", "tokens", "optimizer_steps", "seconds", "peak_memory_bytes"}  # fmt: skip
    pair = report["comparisons"][0]
    assert (pair["treatment"], pair["baseline"], pair["metric"]) == ("grpo", "ppo", "final/accuracy")
    assert pair["n"] == [3, 3]
    assert pair["means"] == pytest.approx([0.629, 0.625])
    assert pair["difference"]["estimate"] == pytest.approx(0.004)
    assert pair["difference"]["ci95"] == pytest.approx([-0.0307, 0.0387], abs=1e-4)
    assert pair["cohens_d"].keys() == pair["hedges_g"].keys() == {"estimate", "ci95", "reason"}
    assert pair["hedges_g"]["estimate"] == pytest.approx(0.208, abs=1e-3)
    assert pair["welch"].keys() == {"t", "df", "p", "p_holm"}
    assert pair["permutation"]["smallest_possible_p"] == pytest.approx(0.1)
    assert pair["minimum_detectable_d"] == pytest.approx(3.07, abs=5e-3)
    assert pair["seeds_needed_for"] == {"0.8": 26}
    assert pair["verdict"] == "inconclusive"
    assert report["fairness"].keys() >= {"ok", "allowed_differences", "violations", "budget"}
    assert report["judge"] is None


def test_four_methods_have_a_matrix_of_six_pairs(four):
    page, html = four
    report = json.loads(page.with_name("report.json").read_text())
    assert len(report["comparisons"]) == 6
    assert sum(pair["verdict"] == "better" for pair in report["comparisons"]) == 2
    assert "RLOO beats PPO and GRPO:" in html
    matrix = html.split('class="matrix"')[1].split("</table>")[0]
    assert matrix.count('class="up"') == 2
    assert matrix.count('class="dn"') == 2
    assert matrix.count('class="na"') == 4


def test_every_drawing_tells_its_numbers(two):
    _, html = two
    drawings = re.findall(r"<svg [^>]*>", html)
    assert all('aria-label="' in tag or "aria-hidden" in tag for tag in drawings)
    assert 'aria-label="GRPO minus PPO +0.4 points, 95% interval \u22123.1 to +3.9"' in html


def test_figures_stand_alone_and_follow_the_palette(two):
    figures = sorted((two[0].parent / "figures").glob("*.svg"))
    for path in figures:
        text = path.read_text()
        assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
        assert "prefers-color-scheme:dark" in text
        assert "DejaVu" not in text
        drawing = text.split("</style>", 1)[1]
        assert "var(--" in drawing
        assert not re.findall(r"#[0-9a-f]{6}\b", drawing), "a color outside the palette would not follow dark mode"


@pytest.mark.parametrize("palette", [theme.LIGHT, theme.DARK])
def test_text_is_readable_on_every_ground(palette):
    words = ("ink", "ink2", "muted", "ok", "warn", "bad", *(f"m{place}" for place in range(8)))
    for ground in ("bg", "card"):
        for word in words:
            assert contrast(palette[word], palette[ground]) >= 4.5, (word, ground)


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_one_method(studies):
    runs = [Fake("ppo", seed, score) for seed, score in zip(SEEDS[:3], (0.62, 0.64, 0.61), strict=True)]
    page, html = build(studies, "report-one", runs)
    assert "there is no other method to compare with" in html
    assert json.loads(page.with_name("report.json").read_text())["comparisons"] == []


def test_identical_seeds_have_no_effect_size(studies):
    runs = [Fake(method, seed, 0.7) for method in ("ppo", "grpo") for seed in SEEDS[:3]]
    page, html = build(studies, "report-zero", runs)
    effect = json.loads(page.with_name("report.json").read_text())["comparisons"][0]["cohens_d"]
    assert effect == {"estimate": None, "ci95": None, "reason": "zero_pooled_variance"}
    assert "identical across seeds" in html
    assert "All seeds of PPO and GRPO have the same result" in html


def test_a_failed_seed_stays_visible_and_removes_the_number(studies):
    runs = two_by_three()
    runs[5] = Fake("grpo", 777, 0.627, status="failed", reason="non-finite loss at step 12")
    page, html = build(studies, "report-failed", runs)
    assert "No verdict:" in html
    assert "777 failed" in html.split('id="seeds"')[1].split("</section>")[0]
    assert "What if?" in html
    assert "Cohen's d<small>" not in html
    assert json.loads(page.with_name("report.json").read_text())["comparisons"][0]["verdict"] == "incomplete"


def test_nothing_finished_at_all(studies):
    runs = two_by_three(status="failed", reason="out of memory")
    _, html = build(studies, "report-nothing", runs)
    assert "0 of 6 planned runs finished" in html
    assert "n/a: no run has a final held-out accuracy." in html
    assert ">nan" not in html


def test_nothing_was_even_started(studies):
    _, html = build(studies, "report-unborn", two_by_three(status="missing", tracked=False))
    assert "0 of 6 planned runs finished" in html
    assert "n/a: no learning curves were recorded" in html


def test_the_text_report_says_the_same(two):
    text = two[0].with_name("report.md").read_text()
    assert "**Inconclusive:** GRPO \u2212 PPO = +0.4 points (95% CI \u22123.1 to +3.9)" in text
    assert "| GRPO \u2212 PPO | 3 vs 3 |" in text
    assert "0.65\u00d7 (" in text
