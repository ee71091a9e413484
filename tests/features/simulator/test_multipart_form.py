import pytest

from tcb_ops.features.simulator.cos import HEAD_LIMIT, Form, boundary_of

FILE = b"\r\n--b0undar\r\n--\r\n\x00\xff--b0undary" * 40
BODY = (
    b'--b0undary\r\nContent-Disposition: form-data; name="key"\r\n\r\n\xe7\x9b\xae/a.png\r\n'
    b'--b0undary\r\ncontent-disposition:form-data; filename="name=x"; name="Signature"\r\n\r\nq=1\r\n'
    b'--b0undary\r\nContent-Disposition: form-data; name="file"; filename="x"\r\nContent-Type: a/b\r\n\r\n'
    + FILE
    + b"\r\n--b0undary--\r\n"
)


def read(body, sizes):
    form, file, place = Form(b"b0undary"), b"", 0
    for size in sizes:
        file += form.feed(body[place : place + size])
        place += size
    return form, file + form.feed(body[place:])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_a_form_reads_alike_however_it_is_cut(size):
    form, file = read(BODY, [size] * (len(BODY) // size + 1))
    assert form.complete
    assert form.fields == {"key": "目/a.png", "signature": "q=1"}
    assert (file, form.size, form.files, form.field_after_file) == (FILE, len(FILE), 1, False)


def test_a_large_file_passes_through_without_being_held():
    form = Form(b"b0undary")
    form.feed(b'--b0undary\r\nContent-Disposition: form-data; name="file"\r\n\r\n')
    held = [len(chunk) - len(form.feed(chunk)) for chunk in [bytes(65536)] * 20]
    assert sum(held) < 32


def field(name, value, disposition="form-data"):
    return b'--b0undary\r\nContent-Disposition: %s; name="%s"\r\n\r\n%s\r\n' % (
        disposition.encode(),
        name,
        value,
    )


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        (field(b"key", b"a") * 2 + b"--b0undary", "field given twice"),
        (field(b"key", b"\xff\xfe") + b"--b0undary", "field is not UTF-8"),
        (b"--b0undary\r\nContent-Type: a/b\r\n\r\nx\r\n", "part without a name"),
        (b"--b0undary\r\n\r\nx\r\n", "part without a name"),
        (b"--b0undaryx\r\n", "boundary without a line break"),
        (field(b"key", b"a" * (HEAD_LIMIT + 9)), "field too long"),
        (b"--b0undary\r\nX: " + b"a" * (HEAD_LIMIT + 9), "part head too long"),
        (b"x" * (HEAD_LIMIT + 9), "field too long"),
    ],
    ids=["twice", "not UTF-8", "no name", "no headers", "boundary", "long field", "long head", "no boundary"],
)
def test_a_form_that_is_none_says_what_is_wrong(body, broken):
    form = Form(b"b0undary")
    assert form.feed(body) == b""
    assert form.broken == broken
    assert form.feed(BODY) == b""
    assert not form.complete


@pytest.mark.parametrize(
    ("content_type", "wanted"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data;charset=utf-8; BOUNDARY="a b"', b"a b"),
        ("multipart/mixed; boundary=abc", None),
        ("application/json", None),
        ("multipart/form-data", None),
        ("", None),
    ],
    ids=["plain", "quoted", "mixed", "json", "no boundary", "none"],
)
def test_the_boundary_is_read_from_the_content_type(content_type, wanted):
    assert boundary_of(content_type) == wanted
