//! Both protocols over the router, with the fixtures' models: what is answered, and in which shape errors are.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use engine::onnx::{Onnx, Settings};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::http::{App, router};
use crate::services::Services;
use crate::settings::ServeSettings;
use crate::tensors;

fn app(settings: ServeSettings) -> Arc<App> {
    app_where_calls_wait(settings, Duration::ZERO)
}

/// `batch_wait` is how long each call waits for others before it is run.
fn app_where_calls_wait(settings: ServeSettings, batch_wait: Duration) -> Arc<App> {
    let services = Services::announce(["two_inputs", "fixed", "loading"].map(str::to_owned)).unwrap();
    let settings_of_engine = Settings { threads: 1, queue_max: 4, batch_rows_max: 8, batch_wait };
    for name in ["two_inputs", "fixed"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/onnx/{name}.onnx"));
        services.loaded(name, 7, Onnx::load(&path, &settings_of_engine).unwrap());
    }
    App::new(settings, services)
}

/// Sends `body`, or asks where it is empty; the answer's status and JSON.
async fn send(app: &Arc<App>, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response =
        router(app.clone()).oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn refused(app: &Arc<App>, path: &str, body: &str, status: u16, expected: &str) {
    let (found, answer) = send(app, path, &[], body).await;
    let error = answer["error"].as_str().unwrap_or_else(|| panic!("{path}: {answer}"));
    assert!(found == status && error.contains(expected), "{path} {body}: {found} {error}");
}

fn infer(a: Value, b: Value) -> Value {
    let input =
        |name: &str, data: Value| json!({ "name": name, "shape": [1, 3], "datatype": "FP32", "data": data });
    json!({ "id": "i", "inputs": [input("b", b), input("a", a)], "outputs": [{ "name": "sum" }] })
}

#[tokio::test]
async fn tensors_come_flat_or_nested_and_keys_in_any_order() {
    let app = app(ServeSettings::default());
    let expected = json!({
        "model_name": "two_inputs", "model_version": "7", "id": "i",
        "outputs": [{ "name": "sum", "datatype": "FP32", "shape": [1, 3], "data": [1.5, 2.0, 3.0] }],
    });
    let url = "/v2/models/two_inputs/infer";
    let flat = infer(json!([1, 2, 3]), json!([0.5, 0, 0])).to_string();
    let nested = infer(json!([[1, 2, 3]]), json!([[0.5, 0, 0]])).to_string();
    let late = r#"{"inputs": [{"data": [1, 2, 3], "shape": [1, 3], "datatype": "FP32", "name": "a"},
        {"data": [0.5, 0, 0], "datatype": "FP32", "name": "b", "shape": [1, 3]}], "outputs": [{"name": "sum"}], "id": "i"}"#;
    for body in [flat.as_str(), nested.as_str(), late] {
        assert_eq!(send(&app, url, &[], body).await, (200, expected.clone()));
    }
    let (status, answer) = send(&app, "/v2/models/two_inputs/versions/7", &[], "").await;
    assert_eq!(
        (status, &answer["inputs"][0]),
        (200, &json!({ "name": "a", "datatype": "FP32", "shape": [-1, 3] }))
    );
    let rows = r#"{"instances": [{"a": [1, 2, 3], "b": [0.5, 0, 0]}]}"#;
    let (status, answer) = send(&app, "/v1/models/two_inputs:predict", &[], rows).await;
    assert_eq!(
        (status, answer),
        (200, json!({ "predictions": [{ "sum": [1.5, 2.0, 3.0], "largest": 3.0 }] }))
    );
}

#[tokio::test]
async fn errors_are_in_the_shape_of_these_protocols() {
    let app = app(ServeSettings { body_bytes_max: 1000, ..ServeSettings::default() });
    let url = "/v2/models/two_inputs/infer";
    let good = infer(json!([1, 2, 3]), json!([0, 0, 0]));
    let with = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body.to_string()
    };
    refused(&app, "/v2/models/none/infer", "{}", 404, "not served here").await;
    refused(&app, "/v2/models/loading/infer", "{}", 503, "still being loaded").await;
    refused(&app, "/v2/nothing", "", 404, "there is nothing at GET /v2/nothing").await;
    refused(&app, url, "", 405, "does not answer to GET").await;
    refused(&app, url, "{", 400, "expected a string, received the end, at byte 1").await;
    refused(&app, url, "{}", 400, "\"inputs\" is required and missing").await;
    refused(
        &app,
        url,
        &with("inputs", json!([])),
        400,
        "the input \"a\" is missing; the model takes a float[n, 3]",
    )
    .await;
    refused(
        &app,
        url,
        &with("sequence", json!(1)),
        400,
        "the key \"sequence\", which the protocol doesn't know",
    )
    .await;
    let state = with("parameters", json!({ "sequence_id": 1 }));
    refused(&app, url, &state, 400, "the parameter \"sequence_id\" is not supported").await;
    refused(&app, url, &with("id", json!("x".repeat(1000))), 413, "larger than 1000 bytes").await;
    let other = infer(json!([[1, 2], [3, 4]]), json!([0, 0, 0])).to_string();
    refused(&app, url, &other, 400, "the input \"a\" has data of the shape [2, 2], and says [1, 3]").await;
    refused(&app, url, &infer(json!([1, 2]), json!([0, 0, 0])).to_string(), 400, "2 elements").await;
    refused(
        &app,
        "/v1/models/two_inputs:predict",
        r#"{"instances": [1]}"#,
        400,
        "must be named in an object",
    )
    .await;
    let uneven = r#"{"instances": [{"a": [1, 2, 3], "b": [1]}, {"a": [1, 2, 3], "b": [1, 2]}]}"#;
    refused(&app, "/v1/models/two_inputs:predict", uneven, 400, "\"b\" has the shape [2] in row 1, and [1]")
        .await;
    let lacking = r#"{"instances": [{"a": [1, 2, 3]}]}"#;
    refused(&app, "/v1/models/two_inputs:predict", lacking, 400, "row 0 has no \"b\"").await;
    let wide = r#"{"examples": [{"x": [1, 2, 3, 4]}, {"x": [1, 2, 3, 4]}]}"#;
    refused(
        &app,
        "/v1/models/fixed:regress",
        wide,
        400,
        "no output of the model is one number for each example",
    )
    .await;
}

#[tokio::test]
async fn calls_end_at_the_limit_of_requests_and_are_not_run_then() {
    let limit = Duration::from_millis(50);
    let settings = || ServeSettings { request_max: Some(limit), ..ServeSettings::default() };
    let app = app_where_calls_wait(settings(), Duration::from_millis(500));
    let said = "there was no answer within 0.05 s, which is as long as a request may take";
    let tensors = infer(json!([1, 2, 3]), json!([0, 0, 0])).to_string();
    refused(&app, "/v2/models/two_inputs/infer", &tensors, 504, said).await;
    let rows = r#"{"instances": [{"a": [1, 2, 3], "b": [0, 0, 0]}]}"#;
    refused(&app, "/v1/models/two_inputs:predict", rows, 504, said).await;
    let examples = r#"{"context": {"b": [0, 0, 0]}, "examples": [{"a": [1, 2, 3]}]}"#;
    refused(&app, "/v1/models/two_inputs:regress", examples, 504, said).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let tensors = tensors::find(&app, "two_inputs", None).unwrap();
    assert_eq!(tensors.onnx.stats().runs_total, 0, "nobody waits for it any more");
}

#[tokio::test]
async fn what_passes_says_when_to_ask_again() {
    let app = app(ServeSettings::default());
    let ask = async |path: &str| {
        let request = Request::builder().method("POST").uri(path).body(Body::from("{}")).unwrap();
        let response = router(app.clone()).oneshot(request).await.unwrap();
        (response.status().as_u16(), response.headers().get("retry-after").cloned())
    };
    let soon = Some("5".parse().unwrap());
    for path in ["/v2/models/loading/infer", "/v1/models/loading:predict"] {
        assert_eq!(ask(path).await, (503, soon.clone()), "{path}");
    }
    app.gate.close();
    assert_eq!(ask("/v2/models/fixed/infer").await, (503, soon));
}

#[tokio::test]
async fn keys_guard_tensors_as_they_guard_texts() {
    let app = app(ServeSettings { keys: vec!["secret".to_owned()], ..ServeSettings::default() });
    for path in ["/v2", "/v2/models/fixed", "/v2/models/fixed/ready", "/v1/models/fixed/metadata"] {
        refused(&app, path, "", 401, "a key is needed").await;
        let (status, _) = send(&app, path, &[("authorization", "Bearer secret")], "").await;
        assert_eq!(status, 200, "{path}");
    }
    refused(&app, "/v1/models/fixed:predict", "{}", 401, "a key is needed").await;
    assert_eq!(send(&app, "/v2/health/live", &[], "").await, (200, json!({ "live": true })));
    assert_eq!(send(&app, "/v2/health/ready", &[], "").await, (503, json!({ "ready": false })));
}

#[tokio::test]
async fn bytes_behind_the_json_are_counted() {
    let app = app(ServeSettings::default());
    let ask = |size: usize, bytes: &str| {
        let x = json!({ "name": "x", "shape": [2, 4], "datatype": "FP32", "parameters": { "binary_data_size": size } });
        let json = json!({ "inputs": [x] }).to_string();
        (json.len().to_string(), format!("{json}{bytes}"))
    };
    for (size, bytes, status, expected) in [
        (32, 32, 200, ""),
        (32, 31, 400, "has 32 bytes after the JSON, where 31 are left"),
        (32, 33, 400, "33 bytes follow the JSON, and its inputs' \"binary_data_size\" speak of 32"),
        (30, 30, 400, "30 bytes are no whole number of elements of 4 bytes"),
        (28, 28, 400, "has 7 elements; its shape [2, 4] asks for 8"),
    ] {
        let (length, body) = ask(size, &"\0".repeat(bytes));
        let header = [("inference-header-content-length", length.as_str())];
        let (found, answer) = send(&app, "/v2/models/fixed/infer", &header, &body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(found == status && error.contains(expected), "{size} {bytes}: {found} {answer}");
    }
    let header = [("inference-header-content-length", "9999")];
    let (status, _) = send(&app, "/v2/models/fixed/infer", &header, "{}").await;
    assert_eq!(status, 400);
}
