"""Writes gate_cases.txt: what the routers of Hugging Face transformers choose for random logits.

Run by hand where torch and transformers are installed:  python gate_cases.py > gate_cases.txt
Each case: a line "case NAME SCORING METHOD experts top_k groups top_groups normalise scaling tokens", a line of
the correction bias (noaux_tc only), then for each token a line of logits and a line of "expert weight" pairs by
rising expert.
"""
import torch
from transformers import DeepseekV2Config, DeepseekV3Config
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

TOKENS = 6


def numbers(values):
    return " ".join("%.9g" % v for v in values)


def write_case(name, scoring, method, router, config, bias, deviation):
    experts = config.n_routed_experts
    router.weight = torch.nn.Parameter(torch.eye(experts))  # logits are then the hidden states
    if bias is not None:
        router.e_score_correction_bias = bias
    logits = torch.randn(TOKENS, experts) * deviation
    with torch.no_grad():
        _, weights, ids = router(logits)
    normalise = int(bias is not None and config.norm_topk_prob)
    print("case", name, scoring, method, experts, config.num_experts_per_tok, config.n_group or 1,
          config.topk_group or 1, normalise, config.routed_scaling_factor, TOKENS)
    if bias is not None:
        print(numbers(bias.tolist()))
    for t in range(TOKENS):
        print(numbers(logits[t].tolist()))
        pairs = sorted(zip(ids[t].tolist(), weights[t].tolist()))
        print(" ".join("%d %.9g" % pair for pair in pairs))


def v2(name, method, **options):
    config = DeepseekV2Config(topk_method=method, norm_topk_prob=False, **options)
    config.hidden_size = config.n_routed_experts
    write_case(name, "softmax", method, DeepseekV2TopkRouter(config), config, None, 1.5)


def v3(name, **options):
    config = DeepseekV3Config(**options)
    config.hidden_size = config.n_routed_experts
    config.num_local_experts = config.n_routed_experts
    bias = torch.randn(config.n_routed_experts) * 0.1
    write_case(name, "sigmoid", "noaux_tc", DeepseekV3TopkRouter(config), config, bias, 1.5)


torch.manual_seed(20)
v2("v2_lite", "greedy", n_routed_experts=64, num_experts_per_tok=6, n_group=1, topk_group=1,
   routed_scaling_factor=1.0)
v2("v2", "group_limited_greedy", n_routed_experts=160, num_experts_per_tok=6, n_group=8, topk_group=3,
   routed_scaling_factor=16.0)
# More experts wanted than the kept groups hold: some of the zeroed ones are taken, with weight 0.
v2("v2_few", "group_limited_greedy", n_routed_experts=16, num_experts_per_tok=4, n_group=4, topk_group=1,
   routed_scaling_factor=16.0)
v3("v3", n_routed_experts=256, num_experts_per_tok=8, n_group=8, topk_group=4, norm_topk_prob=True,
   routed_scaling_factor=2.5)
v3("v3_plain", n_routed_experts=16, num_experts_per_tok=3, n_group=4, topk_group=2, norm_topk_prob=False,
   routed_scaling_factor=1.0)
