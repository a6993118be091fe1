"""The embedded gateway: serves MLflow models on one machine, for a laptop and CI, with weights, capture and rollback.

It must never be taken for production serving, never move traffic by itself, and never import Airflow or another room.
Everything goes over HTTP; this docstring is the whole API. Start it with::

    python -m airflow_mlops.serving --root DIR [--host 127.0.0.1] [--port 0] [--token-file F]

It prints its address as one line when it answers, and writes ``DIR/gateway.json`` = ``{"url", "pid"}``. With a token
file every request but ``GET /health`` needs ``Authorization: Bearer <token>`` (else 401); an address that is not
loopback needs a token file. Errors are ``{"error": "<what, which value, what next>"}``. Names of endpoints and
revisions: a letter or digit, then up to 62 letters, digits, ``.``, ``_`` or ``-``.

Admin API
---------
``GET /health``
    200 ``{"status": "ok", "pid", "since", "workers": {endpoint: {revision: pid}}}``. ``since``: seconds since 1970.
``GET /v1/endpoints``
    200 ``{"endpoints": [<status>, ...]}``.
``GET /v1/endpoints/{e}``
    200 status; 404 lists the endpoints there are. A status is
    ``{"endpoint", "url", "revisions": [{"revision", "model", "version", "digest", "state", "traffic", "detail"}],
    "previous"}``; ``url`` is the invocations address, ``state`` is creating, ready or failed; oldest revision first.
``PUT /v1/endpoints/{e}/revisions/{r}``
    Body ``{"model", "version", "digest", "path"}``; ``path``: folder with the ``MLmodel`` file, on this machine. The
    gateway makes its own copy, so the source may be deleted when the state is ready or failed. 202 status: being
    copied, checked and loaded (poll the GET until the state is ready or failed; a digest that differs ends as failed,
    and ``detail`` says so). 200 status: there already with this digest (a failed one is tried again: 202). 409: there
    with another digest. 400: no such folder, bad name or body. It gets no traffic yet, not even the first one.
``PUT /v1/endpoints/{e}/traffic``
    Body ``{revision: percent}``, sum 100; revisions left out get 0. 200 status; 400 the sum or a percent is wrong, or a
    revision is not ready; 404 no such endpoint or revision (the message lists them).
``POST /v1/endpoints/{e}/rollback``
    All traffic to the revision that was wholly rolled out before: in the middle of a canary the old one, after a full
    roll-out ``previous``. 200 status, also when repeated (a second call in a row changes nothing); 409 there is none.
``DELETE /v1/endpoints/{e}/revisions/{r}``
    200 status, also when it is absent already; 400 it still has traffic; 404 no such endpoint.
``DELETE /v1/endpoints/{e}``
    200 ``{"removed": e}``, also when absent. Captured traffic stays.
``GET /v1/endpoints/{e}/metrics?since=&until=``
    200 ``{revision: {"revision", "requests", "errors", "latency_p50_ms", "latency_p99_ms", "predictions",
    "latencies_ms"}}`` of every revision that answered in the window (seconds since 1970; default: everything
    remembered). It remembers the last 100,000 requests, at most two hours; after a restart those that were captured.
``GET /v1/endpoints/{e}/capture``
    200 ``{"buffered", "written", "dropped"}`` rows since the gateway started.
``POST /v1/endpoints/{e}/flush``
    200 the same after every buffered row was written.

Data plane
----------
``POST /endpoints/{e}/invocations``
    MLflow's scoring protocol: ``dataframe_split``, ``dataframe_records``, ``instances`` or ``inputs``; 200
    ``{"predictions": [...]}``. https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/
``POST /v2/models/{e}/infer``, ``GET /v2/models/{e}``, ``GET /v2/models/{e}/ready``
    Open Inference Protocol V2; each named input is a column, a single two-dimensional one is the whole table.
    https://github.com/kserve/open-inference-protocol

A request goes to one revision by weight; the header ``x-mlops-sticky`` makes the same key choose the same revision
while the weights stay. Answers carry ``x-mlops-revision`` and ``x-request-id`` (yours, if you sent one). Status 400:
the input does not fit (the message names the column); 404 no such endpoint; 413 too large; 500 the model failed; 503
with ``Retry-After``: no traffic is set, or its worker did not come back in time; 504 the model took too long. A
revision whose worker is down is never routed around: a canary that crashes must show as errors, not as silence.

The prediction of a binary classifier with scikit-learn's interface is the score of its positive class (the second of
``classes_``), so that guards have a continuous number. Everything else answers what its pyfunc flavour predicts.

Captured traffic
----------------
``DIR/capture/<endpoint>/<revision>/<YYYY-MM-DD>/part-*.parquet``, one row a scored row: ``request_id`` (string),
``row`` (int32), ``time`` (timestamp[us, UTC], arrival), ``revision`` (string), ``status`` (int16), ``latency_ms``
(float32), ``prediction`` (float64; null on error or when it is no number) and ``input.<feature>`` per feature. Requests
that never reached a model (status 400) are not captured.
"""
