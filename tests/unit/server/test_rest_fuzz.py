from collections.abc import Callable
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto

from tests.unit.server import onnx_models
from tests.unit.server.rest_service import Service
from tests.unit.server.serving import INFER

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)
# Valid enough to get past the first checks, wrong in any way behind them.
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | JSON,
        "datatype": st.sampled_from(["INT64", "FP32", "BYTES", "nope"]) | JSON,
        "shape": st.lists(st.integers(-1, 4)) | st.just([2**63]) | JSON,
        "data": st.lists(st.integers(-2, 1)) | st.lists(st.lists(st.integers(0, 1))) | JSON,
        "parameters": st.dictionaries(st.sampled_from(["binary_data", "x"]), JSON) | JSON,
    },
)
BODIES = JSON | st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3) | JSON},
    optional={
        "id": JSON,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.just("y") | JSON})) | JSON,
        "parameters": JSON,
    },
)


def encodable(value: object) -> bool:
    try:
        orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):
        return False
    return True


@settings(
    # the fixture's folder is overwritten by each example; a busy machine is no failure
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(content=BODIES.filter(encodable).map(orjson.dumps) | st.binary())
async def test_no_body_whatsoever_is_the_servers_error(
    models: Callable[[ModelProto], Any], content: bytes
) -> None:
    service = Service()
    # takes every value there is, so that a 5xx can only be the server's own doing
    service.dataplane.attach(models(onnx_models.identity(TensorProto.INT64, ("N",))))
    try:
        answer = await service.client.post(INFER, content=content)
    finally:
        service.dataplane.close()

    assert answer.status_code in {200, 400}
    assert answer.status_code == 200 or set(answer.json()) == {"error"}
