"""The table is whole."""

from chattts_server.errors import ANSWERS, MALFORMED, InvalidRequest, Overloaded, ServerError, answer_for, body_of


def everything_below(kind):
    return {kind, *(leaf for child in kind.__subclasses__() for leaf in everything_below(child))}


def test_every_error_has_a_status():
    assert set(ANSWERS) == everything_below(ServerError) - {ServerError}


def test_the_body_has_the_shape_of_openai():
    body = body_of(Overloaded("full", code="queue_full", retry_after=2), "abc")
    assert body == {
        "error": {
            "message": "full",
            "type": "rate_limit_error",
            "code": "queue_full",
            "param": None,
            "request_id": "abc",
        }
    }


def test_what_is_no_json_is_400_and_the_rest_422():
    assert answer_for(InvalidRequest("x", code=MALFORMED)).status == 400
    assert answer_for(InvalidRequest("x", code="empty")).status == 422
