// What opens slots, on its way to the device: commands and their data, in pinned chunks that are sent and
// filled again in turn.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "sample/cuda/state.cuh"

namespace fathom::sample::cuda {

class GpuSampler::Staging {
 public:
  static Result<std::unique_ptr<Staging>> create(device::cuda::Stream& stream,
                                                 device::cuda::DeviceArena& arena, const Pools& pools);

  void add_slot(int32_t slot, const Slot& state);
  // Lists are cut where a chunk ends. words_each: of an item.
  void add_list(Command::Kind kind, int32_t slot, std::span<const int32_t> words, int32_t words_each = 1);
  void send();

 private:
  static constexpr int32_t kWords = 1 << 16;
  static constexpr int32_t kCommands = 512;
  struct Chunk {
    Command* commands = nullptr;         // pinned, [kCommands]
    int32_t* words = nullptr;            // pinned, [kWords]
    Command* device_commands = nullptr;  // [kCommands], then the words
    int32_t* device_words = nullptr;
    device::cuda::Event read;  // recorded when the chunk was sent
    bool sent = false;
  };

  Staging(device::cuda::Stream& stream, const Pools& pools) : stream_(stream), pools_(pools) {}

  // The chunk being filled, with room for a command of `words` words.
  Chunk& chunk_with_room(int32_t words);

  device::cuda::Stream& stream_;
  Pools pools_;
  device::cuda::PinnedBuffer pinned_;
  std::array<Chunk, 4> chunks_;
  size_t current_ = 0;
  int32_t num_commands_ = 0, num_words_ = 0;
};

}  // namespace fathom::sample::cuda
