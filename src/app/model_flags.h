// The flags of a command that works on a model. Each command offers those that it obeys, and no others.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "app/args.h"

namespace fathom::app {

// The parts of Fathom that a command runs beside the model's shape; each brings its flags.
struct ModelParts {
  bool weights = false;      // they are loaded or made, and computed with
  bool text = false;         // tokenizer and chat template
  bool ids_only = false;     // may go without them
  bool answers = false;      // messages made of the text
  bool pool = false;         // a KV pool sized from memory, and steps of a bounded size
  bool scheduler = false;    // prefix cache and step loop
  bool batches = false;      // of several requests at once
  bool queue = false;        // of requests that clients send
  bool speculation = false;  // tokens are guessed and verified
  bool ranks = false;        // several may share the model
  bool nodes = false;        // in several processes
  bool groups = false;       // and requests may be spread over groups of them
};

// Adds the flags of `parts` to `command`; they set `args`, which must outlive the parse.
void add_model_flags(CLI::App& command, const ModelParts& parts, ModelArgs& args);

// Of a number above 0, in words: CLI11's own check names the largest double.
CLI::Validator above_zero();

// The headings that they stand under.
inline constexpr char kModelGroup[] = "Model";
inline constexpr char kDeviceGroup[] = "Device";
inline constexpr char kMemoryGroup[] = "Memory";
inline constexpr char kSchedulingGroup[] = "Scheduling";
inline constexpr char kSpeculationGroup[] = "Speculative decoding";
inline constexpr char kRanksGroup[] = "Ranks";

// Refuses the flags of that group of `command` where `flag` is not given.
void group_needs(CLI::App& command, const std::string& group, CLI::Option* flag);

}  // namespace fathom::app
