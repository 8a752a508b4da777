"""The file formats that ColBERT checkpoints come in; `tansaku.onnx_export.convert.load` chooses among them."""
