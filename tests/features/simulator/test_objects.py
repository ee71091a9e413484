"""Files by their file_id: download URLs that give the bytes, deletes that take them away."""

import pytest

from tcb_ops.features.simulator.cos import INDEX

ENV, BUCKET, TOKEN = "shop-a-1f2e3d", "7368-shop-a-1f2e3d-1258717764", "token-of-a+1"
FILE = f"cloud://{ENV}.{BUCKET}/banner/海报 1%2F.png"
PATH = "banner/海报 1%2F.png"


def download(talk, *ids, env=ENV, **more):
    files = [{"fileid": file_id} | more for file_id in ids]
    return talk.call("tcb/batchdownloadfile", TOKEN, env=env, file_list=files)


def delete(talk, *ids, env=ENV):
    return talk.call("tcb/batchdeletefile", TOKEN, env=env, fileid_list=list(ids))


@pytest.mark.parametrize("keep", [True, False], ids=["in a folder", "in memory"])
def test_a_file_can_be_fetched_and_deleted(start, tmp_path, keep):
    talk = start(store=tmp_path / "kept" if keep else None)
    assert talk.upload(PATH, b"\x00bytes\xff").status_code == 204
    answer = download(talk, FILE)
    (entry,) = answer["file_list"]
    assert list(answer) == ["errcode", "errmsg", "file_list"]
    assert entry | {"download_url": ""} == {"fileid": FILE, "download_url": "", "status": 0, "errmsg": "ok"}
    got = talk.http.get(entry["download_url"])
    assert (got.status_code, got.content) == (200, b"\x00bytes\xff")
    assert delete(talk, FILE) == {
        "errcode": 0,
        "errmsg": "ok",
        "delete_list": [{"fileid": FILE, "status": 0, "errmsg": "ok"}],
    }
    left_behind = [file.name for file in tmp_path.rglob("*") if file.is_file()]
    assert (talk.sim.objects, left_behind) == ({}, [INDEX] if keep else [])
    assert delete(talk, FILE)["delete_list"][0]["status"] == -503003
    assert download(talk, FILE)["file_list"][0]["status"] == -503003
    gone = talk.http.get(entry["download_url"])
    assert gone.status_code == 404
    assert "<Code>NoSuchKey</Code>" in gone.text


def test_a_folder_that_cannot_be_written_is_an_answer_and_no_stack_trace(start, tmp_path, caplog):
    talk = start(store=tmp_path / "kept")
    (tmp_path / "kept").rmdir()
    refused = talk.upload(PATH)
    assert (refused.status_code, talk.sim.objects, caplog.messages) == (500, {}, [])
    assert "<Message>The folder of the simulator's store: " in refused.text


@pytest.mark.parametrize("keep", [True, False], ids=["in a folder", "in memory"])
def test_an_object_is_served_with_the_headers_of_its_form(start, tmp_path, keep):
    talk = start(store=tmp_path / "kept" if keep else None)

    def served():
        return talk.http.get(download(talk, FILE)["file_list"][0]["download_url"]).headers

    talk.upload(PATH)
    assert served()["content-type"] == "application/octet-stream"
    assert "cache-control" not in served()
    link = talk.ask(PATH, ENV)
    headers = [("Content-Type", b"image/svg+xml"), ("Cache-Control", b"max-age=60")]
    *fields, file = talk.parts(link, PATH)
    assert talk.post(link["url"], talk.form([*fields, *headers, file])).status_code == 204
    assert (served()["content-type"], served()["cache-control"]) == ("image/svg+xml", "max-age=60")


def test_top_level_0_hides_each_files_own_status(start):
    talk = start()
    talk.upload(PATH)
    ids = (
        FILE,
        f"cloud://{ENV}.{BUCKET}/none",
        "cloud://books-4d5e6f.626f-books-4d5e6f-1258717764/a",
        "a.png",
    )
    for answer, key in ((download(talk, *ids), "file_list"), (delete(talk, *ids), "delete_list")):
        assert answer["errcode"] == 0
        assert [entry["status"] for entry in answer[key]] == [0, -503003, -503002, -503003]
        assert [entry["fileid"] for entry in answer[key]] == list(ids)


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"file_list": [{"fileid": FILE}]}, 40101),
        ({"env": ENV}, 40101),
        ({"env": ENV, "file_list": []}, 40101),
        ({"env": ENV, "file_list": FILE}, 40097),
        ({"env": ENV, "file_list": [FILE]}, 40097),
        ({"env": ENV, "file_list": [{"fileid": FILE}] * 51}, 40097),
        ({"env": ENV, "file_list": [{"fileid": FILE, "max_age": "long"}]}, 40097),
        ({"env": "books-4d5e6f", "file_list": [{"fileid": FILE}]}, -601012),
    ],
    ids=["no env", "no list", "empty list", "a text", "texts", "51", "max_age", "env of another"],
)
def test_a_wrong_list_is_refused_as_a_whole(shared, body, errcode):
    assert shared.call("tcb/batchdownloadfile", TOKEN, **body)["errcode"] == errcode
    if "max_age" not in str(body):
        ids = [each["fileid"] if isinstance(each, dict) else 7 for each in body.get("file_list", [])]
        wanted = {key: value for key, value in body.items() if key == "env"} | {"fileid_list": ids}
        assert shared.call("tcb/batchdeletefile", TOKEN, **wanted)["errcode"] in {errcode, 40097, 40101}


def test_a_file_id_that_is_no_text_is_not_there(shared):
    body = b'{"env":"shop-a-1f2e3d","fileid_list":["cloud://\\ud800"]}'
    url = f"{shared.sim.base}/tcb/batchdeletefile"
    answer = shared.http.post(url, params={"access_token": TOKEN}, content=body)
    assert answer.json()["delete_list"][0]["status"] == -503003


def test_a_download_url_is_signed_and_runs_out(start):
    now = [1000.0]
    talk = start(clock=lambda: now[0])
    talk.upload(PATH)
    url = download(talk, FILE, max_age=60)["file_list"][0]["download_url"]
    assert url.endswith("&t=1060")
    bent = [url.replace("sign=", "sign=0"), url.replace("t=1060", "t=9999"), url.partition("?")[0] + "?t=x"]
    assert [talk.http.get(each).status_code for each in (url, *bent)] == [200, 403, 403, 403]
    now[0] = 1060
    assert "Request has expired" in talk.http.get(url).text


def test_memory_holds_only_the_latest_small_files(start):
    talk = start()
    for number in range(65):
        talk.upload(f"{number}", b"%d" % number)
    talk.upload("large", b"x" * (64 * 1024 + 1))
    base = f"cloud://{ENV}.{BUCKET}"
    listed = download(talk, *(f"{base}/{path}" for path in ("large", "0", "1", "64")))["file_list"]
    got = [talk.http.get(entry["download_url"]) for entry in listed]
    assert [answer.status_code for answer in got] == [404, 404, 200, 200]
    assert [answer.content for answer in got[2:]] == [b"1", b"64"]
    assert len(talk.sim._store._small) == 64
