"""Answers that are meant to differ from the reference's, and why. One that starts to match fails its test."""

_ONCE = "Where an answer has no JSON, the reference sends the metadata headers twice; once is right."
_UTF8 = "Bytes that are not UTF-8 are the client's mistake: 400, where the reference fails to marshal them, 500."

DEVIATIONS = {
    "method/FOO /v1/things/a": "uvicorn's parser refuses methods that HTTP does not know before the gateway sees them.",
    "escape/GET /v1/simple/%FF": _UTF8,
    "query/name=%FF": _UTF8,
    "query/updateMask=": _ONCE,
    "query/updateMask=createTime": _ONCE,
    "query/update_mask=a,,b": _ONCE,
    "query/update_mask=a%2C%20b": _ONCE,
    "header/Grpc-Metadata-: v": "A header that names no metadata is ignored; the reference hands it on and fails, 500.",
    "error/code -1": "grpc in Python names a status number it does not know UNKNOWN, with its own message.",
    "stream/sse accept": "Server-Sent Events when they are asked for; the reference has none.",
}
