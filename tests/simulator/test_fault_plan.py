import pytest

from tcb_ops.errors import SettingsError
from tcb_ops.simulator import Etag, Fault, Faults, Reset, Step, load_faults


def plan(tmp_path, text):
    file = tmp_path / "faults.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('env = "a"\nerrcode = 85088', Fault("a", errcode=85088)),
        ('appid = "wx1"\nerrcode = -1\nerrmsg = "busy"', Fault(appid="wx1", errcode=-1, errmsg="busy")),
        (
            'env = "a"\npath = "b/*"\nstep = "store"\ncode = "SlowDown"',
            Fault("a", path="b/*", step=Step.STORE, code="SlowDown"),
        ),
        (
            'env = "a"\nstep = "store"\ncode = "Odd"\nstatus = 418',
            Fault("a", step=Step.STORE, code="Odd", status=418),
        ),
        ('env = "a"\nstatus = 503', Fault("a", status=503)),
        ('env = "a"\nreset = true', Fault("a", reset=Reset.BEFORE)),
        ('env = "a"\nreset = "middle"', Fault("a", reset=Reset.MIDDLE)),
        ('env = "a"\nbody = "garbage"', Fault("a", garbage=True)),
        ('env = "a"\nlifetime = 1', Fault("a", lifetime=1)),
        ('env = "a"\nstep = "store"\netag = "wrong"', Fault("a", step=Step.STORE, etag=Etag.WRONG)),
        (
            'env = "a"\nstep = "store"\netag = "opaque"\ndelay = 1',
            Fault("a", step=Step.STORE, etag=Etag.OPAQUE, delay=1.0),
        ),
        ('env = "a"\ndelay = 1.5', Fault("a", delay=1.5)),
        ('env = "a"\ncall = 2\nerrcode = -1', Fault("a", calls=((2, 2),), errcode=-1)),
        ('env = "a"\ncall = "1-3"\nerrcode = -1', Fault("a", calls=((1, 3),), errcode=-1)),
        ('env = "a"\ncall = [1, "4-5"]\nerrcode = -1', Fault("a", calls=((1, 1), (4, 5)), errcode=-1)),
    ],
)
def test_an_entry_is_read(tmp_path, text, wanted):
    assert load_faults(plan(tmp_path, f"[[fault]]\n{text}\n")) == Faults((wanted,))


def test_an_empty_file_is_an_empty_plan(tmp_path):
    assert load_faults(plan(tmp_path, "# nothing\n")) == Faults()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("errcode = 1", "env, appid or both"),
        ('env = "a"', "say what goes wrong"),
        ('env = ""\nerrcode = 1', "env must be a text"),
        ("env = 7\nerrcode = 1", "env must be a text"),
        ('env = "a"\nerrcod = 1', "no “errcod”"),
        ('env = "a"\nstep = "upload"\ndelay = 1', "step must be one of link, store"),
        ('env = "a"\nerrcode = "85088"', "whole number"),
        ('env = "a"\nerrcode = true', "whole number"),
        ('env = "a"\nerrcode = 0', "no fault"),
        ('env = "a"\nstatus = 200', "from 300 to 599"),
        ('env = "a"\nreset = false', 'true or "middle"'),
        ('env = "a"\nreset = "end"', 'true or "middle"'),
        ('env = "a"\nbody = "x"', "garbage"),
        ('env = "a"\nlifetime = -1', "from 0"),
        ('env = "a"\nlifetime = 1.5', "whole number"),
        ('env = "a"\ndelay = -1', "seconds"),
        ('env = "a"\ndelay = nan', "seconds"),
        ('env = "a"\ncall = 0\nerrcode = 1', "counts from 1"),
        ('env = "a"\ncall = "3-1"\nerrcode = 1', "counts from 1"),
        ('env = "a"\ncall = "1-"\nerrcode = 1', "counts from 1"),
        ('env = "a"\ncall = []\nerrcode = 1', "counts from 1"),
        ('env = "a"\ncall = true\nerrcode = 1', "counts from 1"),
        ('env = "a"\ncall = 1.0\nerrcode = 1', "counts from 1"),
        ('env = "a"\ncode = "SlowDown"', 'step = "store"'),
        ('env = "a"\netag = "wrong"', 'step = "store"'),
        ('env = "a"\nstep = "store"\nerrcode = 1', 'step = "link"'),
        ('env = "a"\nstep = "store"\nlifetime = 1', 'step = "link"'),
        ('env = "a"\nstep = "store"\nbody = "garbage"', 'step = "link"'),
        ('env = "a"\nerrcode = 1\nstatus = 503', "do not go together"),
        ('env = "a"\nerrcode = 1\nlifetime = 5', "do not go together"),
        ('env = "a"\nstep = "store"\nstatus = 503\nreset = true', "do not go together"),
        ('env = "a"\nstatus = 503\nerrmsg = "x"', "errmsg goes with"),
    ],
)
def test_a_wrong_entry_names_the_file_and_its_number_in_both_languages(tmp_path, text, said):
    file = plan(tmp_path, f'[[fault]]\nenv = "ok"\nerrcode = -1\n[[fault]]\n{text}\n')
    with pytest.raises(SettingsError) as caught:
        load_faults(file)
    assert f"{file}: fault 2: " in caught.value.text.en
    assert said in caught.value.text.en
    assert f"{file}：第 2 条故障：" in caught.value.text.zh
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    ["[[fault]\n", "[fault]\nenv = 'a'\n", "[[faults]]\nenv = 'a'\n", "fault = 1\n", "fault = [1]\n"],
    ids=["not TOML", "a table", "other name", "a number", "numbers"],
)
def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path, text):
    with pytest.raises(SettingsError, match=r"faults\.toml"):
        load_faults(plan(tmp_path, text))


def test_a_missing_plan_is_refused_by_name(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_faults(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("fault", "env", "appid", "path", "call", "played"),
    [
        (Fault("a", errcode=1), "a", "wx1", "p", 1, True),
        (Fault("a", errcode=1), "ab", "wx1", "p", 1, False),
        (Fault("a*", errcode=1), "ab", "wx1", "p", 1, True),
        (Fault("A", errcode=1), "a", "wx1", "p", 1, False),
        (Fault(appid="wx1", errcode=1), "b", "wx1", "p", 1, True),
        (Fault("a", "wx1", errcode=1), "a", "wx2", "p", 1, False),
        (Fault("a", path="b/*.png", errcode=1), "a", "wx1", "b/c/d.png", 1, True),
        (Fault("a", path="b/*.png", errcode=1), "a", "wx1", "b/d.jpg", 1, False),
        (Fault("a", calls=((2, 3),), errcode=1), "a", "wx1", "p", 1, False),
        (Fault("a", calls=((2, 3),), errcode=1), "a", "wx1", "p", 3, True),
        (Fault("a", calls=((2, 3),), errcode=1), "a", "wx1", "p", 4, False),
        (Fault("a", step=Step.STORE, code="X"), "a", "wx1", "p", 1, False),
    ],
)
def test_a_fault_is_played_where_it_fits(fault, env, appid, path, call, played):
    found = Faults((fault,)).within(env, appid).find(Step.LINK, path, call)
    assert found is (fault if played else None)


def test_the_first_entry_that_fits_is_played():
    first, second = Fault("a", calls=((1, 1),), errcode=1), Fault("a", errcode=2)
    faults = Faults((first, second))
    assert [faults.find(Step.LINK, "p", call) for call in (1, 2)] == [first, second]


def test_calls_are_counted_only_for_paths_of_an_entry_that_names_a_call():
    faults = Faults((Fault("a", path="b/*", calls=((1, 1),), errcode=1), Fault("a", errcode=2)))
    assert [faults.counted(Step.LINK, path) for path in ("b/1", "c/1")] == [True, False]
    assert not faults.counted(Step.STORE, "b/1")
