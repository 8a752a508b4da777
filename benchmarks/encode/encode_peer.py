"""The part of encode.py that runs in the peer's environment: sentence-transformers' ONNX backend.

Reads {"model", "texts", "threads", "rounds"} as JSON from standard input and prints the median seconds of encoding all
texts to token vectors, at float32 and at its own dynamic int8, each with the better of two batch sizes.
"""

import json
import statistics
import sys
import time
from importlib.metadata import version

import onnxruntime
from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

BATCHES = (4, 32)


def main() -> None:
    request = json.load(sys.stdin)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    arguments = {"provider": "CPUExecutionProvider", "session_options": options}
    folder = request["model"]

    plain = SentenceTransformer(folder, backend="onnx", device="cpu", model_kwargs={**arguments, "export": True})
    plain.save_pretrained(folder)
    export_dynamic_quantized_onnx_model(plain, "avx512_vnni", folder)
    quantized_file = {"file_name": "onnx/model_qint8_avx512_vnni.onnx"}
    quantized = SentenceTransformer(folder, backend="onnx", device="cpu", model_kwargs={**arguments, **quantized_file})

    seconds = {}
    for name, model in (("sentence-transformers ONNX float32", plain), ("sentence-transformers ONNX int8", quantized)):
        times = []
        for batch in BATCHES:
            model.encode(request["texts"], output_value="token_embeddings", batch_size=batch)
            rounds = []
            for _ in range(request["rounds"]):
                started = time.perf_counter()
                model.encode(request["texts"], output_value="token_embeddings", batch_size=batch)
                rounds.append(time.perf_counter() - started)
            times.append(statistics.median(rounds))
        seconds[name] = min(times)
    print(json.dumps({"seconds": seconds, "versions": version("sentence-transformers")}))


if __name__ == "__main__":
    main()
