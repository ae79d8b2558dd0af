extern "C" int onnxq_cpu_features() { return 0; }
