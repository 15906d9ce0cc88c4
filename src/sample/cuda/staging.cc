#include "sample/cuda/staging.h"

#include <algorithm>
#include <cstring>

namespace fathom::sample::cuda {

Result<std::unique_ptr<GpuSampler::Staging>> GpuSampler::Staging::create(device::cuda::Stream& stream,
                                                                         device::cuda::DeviceArena& arena,
                                                                         const Pools& pools) {
  constexpr size_t kCommandBytes = kCommands * sizeof(Command);
  constexpr size_t kBytes = kCommandBytes + kWords * sizeof(int32_t);
  static_assert(kCommandBytes % 16 == 0);
  std::unique_ptr<Staging> staging(new Staging(stream, pools));
  auto pinned = device::cuda::PinnedBuffer::allocate(kBytes * staging->chunks_.size());
  if (!pinned.ok()) return pinned.error();
  staging->pinned_ = std::move(*pinned);
  auto* host = static_cast<std::byte*>(staging->pinned_.data());
  for (Chunk& chunk : staging->chunks_) {
    auto on_device = arena.allocate(kBytes);
    if (!on_device.ok()) return on_device.error();
    auto event = device::cuda::Event::create();
    if (!event.ok()) return event.error();
    chunk.commands = reinterpret_cast<Command*>(host);
    chunk.words = reinterpret_cast<int32_t*>(host + kCommandBytes);
    chunk.device_commands = static_cast<Command*>(*on_device);
    chunk.device_words = reinterpret_cast<int32_t*>(static_cast<std::byte*>(*on_device) + kCommandBytes);
    chunk.read = std::move(*event);
    host += kBytes;
  }
  return staging;
}

GpuSampler::Staging::Chunk& GpuSampler::Staging::chunk_with_room(int32_t words) {
  if (num_commands_ == kCommands || num_words_ + words > kWords) send();
  Chunk& chunk = chunks_[current_];
  if (chunk.sent) {
    const auto waited = chunk.read.wait();
    if (!waited.ok()) stream_.note(cudaErrorUnknown, "sample: open");
    chunk.sent = false;
  }
  return chunk;
}

void GpuSampler::Staging::add_slot(int32_t slot, const Slot& state) {
  constexpr int32_t kSlotWords = sizeof(Slot) / sizeof(int32_t);
  num_words_ += num_words_ % 2;  // the state holds 8-byte numbers
  Chunk& chunk = chunk_with_room(kSlotWords);
  // The commands of a chunk run together: a slot opened twice goes into two.
  const bool there = std::any_of(chunk.commands, chunk.commands + num_commands_,
                                 [slot](const Command& command) { return command.slot == slot; });
  if (there) send();
  Chunk& target = there ? chunk_with_room(kSlotWords) : chunk;
  target.commands[num_commands_++] = {Command::kSlot, slot, num_words_, kSlotWords, 0};
  std::memcpy(target.words + num_words_, &state, sizeof(Slot));
  num_words_ += kSlotWords;
}

void GpuSampler::Staging::add_list(Command::Kind kind, int32_t slot, std::span<const int32_t> words,
                                   int32_t words_each) {
  int32_t first = 0;
  while (!words.empty()) {
    Chunk& chunk = chunk_with_room(words_each);
    const int32_t items =
        std::min(static_cast<int32_t>(words.size()) / words_each, (kWords - num_words_) / words_each);
    const auto taken = static_cast<size_t>(items * words_each);
    chunk.commands[num_commands_++] = {kind, slot, num_words_, items, first};
    std::memcpy(chunk.words + num_words_, words.data(), taken * sizeof(int32_t));
    num_words_ += static_cast<int32_t>(taken);
    first += items;
    words = words.subspan(taken);
  }
}

void GpuSampler::Staging::send() {
  if (num_commands_ == 0) return;
  Chunk& chunk = chunks_[current_];
  stream_.copy(chunk.device_commands, chunk.commands, static_cast<size_t>(num_commands_) * sizeof(Command));
  stream_.copy(chunk.device_words, chunk.words, static_cast<size_t>(num_words_) * sizeof(int32_t));
  stream_.record(chunk.read);
  chunk.sent = true;
  launch_apply(stream_, pools_, chunk.device_commands, num_commands_, chunk.device_words);
  current_ = (current_ + 1) % chunks_.size();
  num_commands_ = num_words_ = 0;
}

}  // namespace fathom::sample::cuda
