"""Once for each model: a checkpoint is loaded, traced to ONNX, quantized and compared. Needs the extra ``export``."""
