#include "device/cuda/graph.h"

#include <utility>

namespace fathom::device::cuda {

Result<Graph> Graph::capture(Stream& stream, const std::function<void()>& queue) {
  FATHOM_TRY(stream.status());
  FATHOM_TRY(
      check(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal), "begin capture"));
  queue();
  cudaGraph_t recorded = nullptr;
  const auto ended = check(cudaStreamEndCapture(stream.handle(), &recorded), "end capture");
  FATHOM_TRY(stream.status());
  FATHOM_TRY(ended);
  Graph graph;
  size_t nodes = 0;
  const auto counted = check(cudaGraphGetNodes(recorded, nullptr, &nodes), "count nodes");
  const auto made = check(cudaGraphInstantiate(&graph.executable_, recorded, 0), "instantiate graph");
  cudaGraphDestroy(recorded);
  FATHOM_TRY(counted);
  FATHOM_TRY(made);
  // Now, not by the first launch, which may find the GPU held by kernels that wait for it.
  FATHOM_TRY(check(cudaGraphUpload(graph.executable_, stream.handle()), "upload graph"));
  graph.nodes_ = static_cast<int64_t>(nodes);
  return graph;
}

Graph::~Graph() {
  if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
}
Graph::Graph(Graph&& other) noexcept
    : executable_(std::exchange(other.executable_, nullptr)), nodes_(std::exchange(other.nodes_, 0)) {}
Graph& Graph::operator=(Graph&& other) noexcept {
  std::swap(executable_, other.executable_);
  std::swap(nodes_, other.nodes_);
  return *this;
}

void Graph::launch(Stream& stream) const {
  stream.note(cudaGraphLaunch(executable_, stream.handle()), "graph launch");
}

}  // namespace fathom::device::cuda
