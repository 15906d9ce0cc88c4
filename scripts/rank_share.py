#!/usr/bin/env python3
"""A model as narrow as one rank's share of another, so that one GPU shows what each of several would do in a
step, all but their meetings:
    scripts/rank_share.py models/configs/deepseek_v3_slice9 8 /tmp/share
    build/release/fathom bench --model-path /tmp/share --load-format dummy --batch 1 --input-len 512 --output-len 48
Heads, the widths of dense layers and experts and the vocabulary are divided by the ranks (tensor parallelism)."""
import json
import pathlib
import sys

DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "moe_intermediate_size", "vocab_size")


def main() -> int:
    if len(sys.argv) != 4 or not sys.argv[2].isdigit() or int(sys.argv[2]) < 1:
        print("usage: rank_share.py MODEL RANKS OUT", file=sys.stderr)
        return 2
    model, ranks, out = pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    config = json.loads((model / "config.json").read_text())
    for key in DIVIDED:
        value = config.get(key)
        if value is None:
            continue
        if value % ranks != 0:
            print(f"{key} is {value}, which {ranks} ranks do not divide", file=sys.stderr)
            return 1
        config[key] = value // ranks
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
