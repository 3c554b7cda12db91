"""What the Python side and the Rust side of the parity tests make alike: weights, tokens.

The Rust twin is tests/parity_common/mod.rs. Every number is a function of (name, index)
and exact in both languages: integers by splitmix64, products and sums in float32.
"""

import numpy as np

VOCAB = 259
MASK = (1 << 64) - 1


def fnv(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def units(name: str, count: int) -> np.ndarray:
    """`count` numbers in [-1, 1), multiples of 2^-23."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)


def weight(name: str, shape) -> np.ndarray:
    """A tensor of a model: matrices spread by their inputs, norms near 1, biases small."""
    u = units(name, int(np.prod(shape)))
    if len(shape) == 2:
        u = u * np.float32(np.sqrt(np.float64(3) / np.float64(shape[1])))
    elif name.endswith("norm.weight"):
        u = u * np.float32(0.25) + np.float32(1)
    else:
        u = u * np.float32(0.25)
    return u.reshape(shape)


def tokens(name: str, count: int) -> list[int]:
    """`count` tokens of the tiny vocabulary, none of the three special ones."""
    u = units("tokens " + name, count)
    return [3 + int((x + np.float32(1)) * np.float32(128)) for x in u]


BASE = dict(
    hidden_act="silu", hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=VOCAB,
    max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0,
    tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
)


def variant(model_type: str, **other) -> dict:
    names = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
    return BASE | {"model_type": model_type, "architectures": [names[model_type]]} | other


VARIANTS = {
    "llama": variant("llama"),
    "qwen2": variant("qwen2", tie_word_embeddings=False, num_hidden_layers=3, rms_norm_eps=1e-6, rope_theta=1e6),
    "qwen3": variant("qwen3", head_dim=32, rope_theta=1e6),
    "llama-bias": variant("llama", attention_bias=True, num_key_value_heads=4, tie_word_embeddings=False),
    "linear": variant("llama", rope_scaling={"rope_type": "linear", "factor": 2.5}),
    "dynamic": variant("llama", max_position_embeddings=32, rope_scaling={"type": "dynamic", "factor": 4.0}),
    "llama3": variant("llama", rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}),
    "yarn": variant("qwen3", rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}),
    "yarn-mscale": variant("llama", rope_scaling={
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 16.0,
        "beta_slow": 2.0, "mscale": 1.2, "mscale_all_dim": 0.7, "truncate": False}),
}
