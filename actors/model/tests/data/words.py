"""Tokenizers and chat templates: small ones made here, and what Python makes of texts."""

import inspect
import io
import json
import textwrap

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaTokenizer, LlamaTokenizerFast, PreTrainedTokenizerFast, Qwen2TokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.utils.chat_template_utils import render_jinja_template

CORPUS = [
    "", " ", "  ", "\n", "\r\n", "\t\t", "a", " a", "a ", "  two  spaces  ",
    "def f(x):\n    return x + 1\n", "if a:\r\n\tb = [1, 22, 333, 4444]\r\n", "x=1;\ty  =\t'it''s'\n\n\n",
    "We've they'LL I'D 'S can't", "naïve café Ünïcödé ﬁ Å Å ½", "日本語のテキスト と 中文", "Привет, мир!",
    "🙂👩‍👩‍👧‍👦🇩🇪 e\u0301 \u200b\ufeff", "<|im_start|>user\nhi<|im_end|>", "a<|endoftext|>b <s> </s>[INST]",
    "0123456789 1e-5 0x7f 3.14159", "    def __init__(self, *args, **kwargs) -> None:  # noqa: E501\n",
    "https://example.org/a_b-c?d=%20e#f", "\u00a0nbsp\u2003em\u3000wide", "tail newline\n", "tabs\tand\nlines\r",
    "{\"k\": [null, true, -0.0]}", "\\d+\\.\\s*$^", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ΑΒΓ αβγ ß ẞ İı",
    "\x00\x01\x7f", "▁low▁line", "  - item\n    - deeper\n", "end.  \n\n  Begin", "don't, won't; 'quoted' \"double\"",
]
LLAMA3 = TikTokenConverter(vocab_file="none").pattern

CONVERSATIONS = [
    [("user", "hello")],
    [("system", " Be brief. "), ("user", "a\n\nb "), ("assistant", " ok\n"), ("user", "{{ x }} <b>\"é\"</b>\t🙂")],
    [("user", "one"), ("assistant", "<think>\nhm\n</think>\n\nanswer"), ("user", "two"), ("assistant", "last")],
]

# Written for these tests, with what the templates of model families are made of.
TEMPLATES = {
    "chatml": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "headers": "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n        {%- set date_string = strftime_now('%d %b %Y') %}\n    {%- else %}\n        {%- set date_string = '26 Jul 2024' %}\n    {%- endif %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = '' %}\n{%- endif %}\n{{- '<|start|>system<|end|>\n\n' }}\n{%- if tools is not none %}{{- 'Environment: tools\n' }}{%- endif %}\n{{- 'Today: ' + date_string + '\n' + system_message + '<|eot|>' }}\n{%- for message in messages %}\n    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}\n        {{- '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}\n    {%- elif message.tool_calls|length != 1 %}\n        {{- raise_exception('one call at a time') }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start|>assistant<|end|>\n\n' }}\n{%- endif %}\n",
    "brackets": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "thinking": "{%- set ns = namespace(last=messages|length - 1, found=false) %}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if not ns.found and message.role == \"user\" and message.content is string and not (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}\n        {%- set ns.found = true %}\n        {%- set ns.last = index %}\n    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n    {%- set content = message.content if message.content is string else '' %}\n    {%- if message.role == 'assistant' %}\n        {%- set thought = '' %}\n        {%- if '</think>' in content %}\n            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n        {%- endif %}\n        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}\n            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}\n        {%- else %}\n            {{- '<|im_start|>' + message.role + '\\n' + content }}\n        {%- endif %}\n        {{- '<|im_end|>\\n' }}\n    {%- else %}\n        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}",
    "helpers": "{% macro head(role, n=1) %}\n[{{ role | upper }} {{ n }} {{ '=' * 3 }}]\n{% endmacro %}\n{% for message in messages %}\n  {% if message.role not in ['system', 'user', 'assistant'] %}{% continue %}{% endif %}\n{{ head(message.role, n=loop.index) }}\n{%- generation -%}\n  {{ message | tojson }} {{ message.content | length }} {{ loop.first }} {{ none }}\n{%- endgeneration %}\n\n{# a remark #}\n{% if loop.index == 3 %}{% break %}{% endif %}\n{% endfor %}\n{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }} {{ {'a': [1, 2.5, none, true]} | tojson(indent=2) }}\n{% for key, value in messages[0].items() %}{{ key }}={{ value.replace('l', 'L').title() }};{% endfor %}{{ messages[-1].get('name', 'none') }} {{ 'x' ~ 7 ~ eos_token }} {{ (messages | first).role | capitalize }} {{ 7 // 2 }} {{ messages | length if messages else 0 }}{{ '\\n' if add_generation_prompt }}\n",
}


def turns(conversation):
    return [{"role": r, "content": c} for r, c in conversation]


def material():
    """Text to learn small vocabularies from; only pieces of it end up in the fixtures."""
    return "\n".join([inspect.getsource(textwrap), inspect.getsource(json), *CORPUS, "  ".join(t[1] for c in CONVERSATIONS for t in c)] * 2)


def byte_level():
    """A byte-level BPE of 600 tokens, as lists for GGUF."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    learner.train_from_iterator(material().split("\n"), trainer)
    model = json.loads(learner.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get) + ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return tokens, merges


def references(tokens, merges, place):
    """For each pre-tokenizer that GGUF names, the tokenizer of the family in Python."""
    special = tokens[-3:]
    vocab = {t: i for i, t in enumerate(tokens[:-3])}
    (place / "vocab.json").write_text(json.dumps(vocab))
    (place / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    qwen = Qwen2TokenizerFast(vocab_file=str(place / "vocab.json"), merges_file=str(place / "merges.txt"))
    qwen.add_special_tokens({"additional_special_tokens": special})

    def wrap(pre, **model):
        inner = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges], **model))
        inner.pre_tokenizer, inner.decoder = pre, decoders.ByteLevel()
        out = PreTrainedTokenizerFast(tokenizer_object=inner)
        out.add_special_tokens({"additional_special_tokens": special})
        return out

    level = pre_tokenizers.ByteLevel
    from tokenizers import Regex
    return {
        "qwen2": qwen,
        "gpt-2": wrap(level(add_prefix_space=False)),
        "smollm": wrap(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)])),
        "llama-bpe": wrap(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), level(add_prefix_space=False, use_regex=False)]), ignore_merges=True),
    }


def sentence_piece(place):
    """A SentencePiece BPE as Llama's: bytes to fall back to, digits apart, blanks kept."""
    import sentencepiece

    model = io.BytesIO()
    lines = [line for line in material().split("\n") if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=620, model_type="bpe", byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=0.995, num_threads=1, minloglevel=2)
    (place / "tokenizer.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def default_model(cache):
    """SmolLM2's tokenizer. Its own tokenizer.json (and llama.cpp) sets digits apart;
    transformers' reader of GGUF leaves that step out."""
    file = next((cache / "models").glob("*/SmolLM2-135M-Instruct.Q4_1.gguf"))
    out = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    out.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return out


def compare(path, cache) -> int:
    """`path`: a JSON list of [text, tokens] by gametape with the default model."""
    tokenizer = default_model(cache)
    pairs = json.loads(path.read_text())
    for text, ours in pairs:
        theirs = tokenizer.encode(text, add_special_tokens=False)
        if theirs != ours:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
            print("differs at token", at, repr(tokenizer.decode(theirs[max(0, at - 5):at + 5])), ours[at:at + 5], theirs[at:at + 5])
            return 1
    print(f"{len(pairs)} texts of {sum(len(t) for _, t in pairs)} tokens are the same")
    return 0


def record_text(out, cache):
    import tempfile
    from pathlib import Path

    fixture = {"corpus": CORPUS, "conversations": [turns(c) for c in CONVERSATIONS]}
    smollm2 = default_model(cache)
    fixture["smollm2"] = {
        "ids": [smollm2.encode(t, add_special_tokens=False) for t in CORPUS],
        "chats": [smollm2.apply_chat_template(turns(c), tokenize=False, add_generation_prompt=True) for c in CONVERSATIONS],
    }
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        tokens, merges = byte_level()
        fixture["byte_level"] = {"tokens": tokens, "merges": merges, "ids": {}}
        for name, tokenizer in references(tokens, merges, place).items():
            fixture["byte_level"]["ids"][name] = [tokenizer.encode(t, add_special_tokens=False) for t in CORPUS]
        piece = sentence_piece(place)
        count = piece.get_piece_size()
        kinds = [2 if piece.is_unknown(i) else 3 if piece.is_control(i) else 6 if piece.is_byte(i) else 1 for i in range(count)]
        fixture["sentence_piece"] = {
            "tokens": [piece.id_to_piece(i) for i in range(count)],
            "scores": [piece.get_score(i) for i in range(count)],
            "kinds": kinds,
            "ids": [piece.encode(t) for t in CORPUS],
        }
        # The same as tokenizer.json, old style (a space behind every special token) and
        # new style (at the beginning only), with whole conversations as tokens.
        fixture["llama"] = {}
        for name, legacy in (("legacy", True), ("first", False)):
            tokenizer = LlamaTokenizerFast(vocab_file=str(place / "tokenizer.model"), legacy=legacy, from_slow=True)
            tokenizer.chat_template = TEMPLATES["brackets"]
            text = json.loads(tokenizer.backend_tokenizer.to_str())
            del text["model"]  # the vocabulary is above, the merges follow from it
            fixture["llama"][name] = {
                "json": text,
                "ids": [tokenizer.encode(t, add_special_tokens=False) for t in CORPUS],
                "chats": [tokenizer.apply_chat_template(turns(c), add_generation_prompt=True) for c in CONVERSATIONS],
            }
            text["post_processor"] = None
    fixture["templates"] = {}
    for name, source in TEMPLATES.items():
        cases = []
        for conversation in CONVERSATIONS:
            for prompt in (False, True):
                rendered, _ = render_jinja_template(
                    [turns(conversation)], chat_template=source, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>",
                    date_string="26 Jul 2024")
                cases.append(rendered[0])
        fixture["templates"][name] = {"source": source, "texts": cases}
    (out / "text.json").write_text(json.dumps(fixture, ensure_ascii=True, separators=(",", ":")) + "\n")
