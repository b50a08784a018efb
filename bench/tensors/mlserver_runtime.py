"""MLServer has no runtime for ONNX of its own: this is one, as its documentation writes custom ones."""

import numpy
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

from peers import session


class Network(MLModel):
    async def load(self):
        self.session = session(self.settings.parameters.uri)
        return True

    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0]).astype(numpy.float32)
        [outputs] = self.session.run(None, {"x": x})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", outputs)])
