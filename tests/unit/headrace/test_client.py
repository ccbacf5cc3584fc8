"""What the commands make of the admin API's answers: pages put together, and refusals as one sentence."""

from __future__ import annotations

import httpx
import pytest

from headrace.client import AdminClient, ApiError, Unreachable, path_segment
from headrace.output import cell


def api(answer: httpx.Response | Exception) -> AdminClient:
    def transport(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return AdminClient("http://here/v1", "sk", transport=httpx.MockTransport(transport))


def test_pages_are_put_together_up_to_what_is_wanted() -> None:
    asked: list[dict[str, str]] = []

    def transport(request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        asked.append(query)
        begin, count = int(query.get("after", 0)), int(query["limit"])
        data = [{"n": number} for number in range(begin, begin + count)]
        return httpx.Response(200, json={"data": data, "next_cursor": str(begin + count)})

    with AdminClient("http://here", "sk", transport=httpx.MockTransport(transport)) as made:
        found = [one["n"] for one in made.pages("tasks", most=250, queue="chat", level=None)]
    assert found == list(range(250))
    assert asked == [
        {"limit": "100", "queue": "chat"},
        {"after": "100", "limit": "100", "queue": "chat"},
        {"after": "200", "limit": "50", "queue": "chat"},
    ]


def test_a_refusal_is_its_message() -> None:
    with pytest.raises(ApiError, match=r"^there is no queue x$"):
        api(httpx.Response(404, json={"error": {"message": "there is no queue x"}})).get("queues/x")
    with pytest.raises(ApiError, match="here answered 502; is it a Headrace ingress"):
        api(httpx.Response(502, text="<html>")).get("queues")


def test_an_unreachable_ingress_has_its_own_error() -> None:
    with pytest.raises(Unreachable, match="the ingress at http://here does not answer: refused"):
        api(httpx.ConnectError("refused")).get("queues")
    with pytest.raises(ApiError, match="is not a valid URL"):
        api(httpx.InvalidURL("no")).get("queues")


def test_values_are_shown_for_people_and_names_stay_in_their_place() -> None:
    assert [cell(value) for value in (None, True, False, 5, {"a": 1})] == ["", "yes", "no", "5", '{"a": 1}']
    assert path_segment("../a b?") == "..%2Fa%20b%3F"
