"""The file formats that ColBERT checkpoints come in; `tansaku.onnx_export.load` chooses among them."""
