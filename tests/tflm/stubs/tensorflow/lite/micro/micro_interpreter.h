// See micro_mutable_op_resolver.h.
#pragma once
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

union TfLitePtrUnion {
  void* data;
};

struct TfLiteTensor {
  TfLitePtrUnion data;
  std::size_t bytes;
};

namespace tflite {

struct Model;

class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver& op_resolver, std::uint8_t* tensor_arena,
                   std::size_t tensor_arena_size);
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteTensor* input(std::size_t index);
  TfLiteTensor* output(std::size_t index);
  std::size_t arena_used_bytes() const;
};

}  // namespace tflite
