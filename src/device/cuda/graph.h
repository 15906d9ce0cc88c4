// A captured sequence of launches that one call replays.
#pragma once

#include <functional>

#include "device/cuda/stream.h"

namespace fathom::device::cuda {

// Movable.
class Graph {
 public:
  Graph() = default;
  // Runs `queue` while the stream records instead of executing. An error names the op that could not be
  // captured.
  static Result<Graph> capture(Stream& stream, const std::function<void()>& queue);
  ~Graph();
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;

  explicit operator bool() const { return executable_ != nullptr; }
  int64_t nodes() const { return nodes_; }
  void launch(Stream& stream) const;

 private:
  cudaGraphExec_t executable_ = nullptr;
  int64_t nodes_ = 0;
};

}  // namespace fathom::device::cuda
