"""The peers of bench/tensors, each a process of its own: `peers.py fastapi|mlserver MODEL PORT`."""

import asyncio
import sys

import numpy
import onnxruntime


def session(path):
    # One thread a call is the fastest for a network of this size, with either server.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def serve_fastapi(path, port):
    import fastapi
    import pydantic
    import uvicorn

    app, model = fastapi.FastAPI(), session(path)

    class Request(pydantic.BaseModel):
        instances: list[list[float]]

    @app.post("/predict")
    async def predict(request: Request):
        [outputs] = model.run(None, {"x": numpy.asarray(request.instances, numpy.float32)})
        return {"predictions": outputs.tolist()}

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False)


def serve_mlserver(path, port):
    from mlserver import MLServer, ModelSettings, Settings
    from mlserver.settings import ModelParameters
    from mlserver_runtime import Network

    async def main():
        # In its own process, without workers: the fewest hops that it offers.
        server = MLServer(Settings(host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2, debug=False,
                                   parallel_workers=0))
        model = ModelSettings(name="article", implementation=Network, parameters=ModelParameters(uri=path))
        await server.start([model])

    asyncio.run(main())


if __name__ == "__main__":
    {"fastapi": serve_fastapi, "mlserver": serve_mlserver}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
