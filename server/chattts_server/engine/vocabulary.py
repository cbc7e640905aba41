"""The tokenizer files of a random checkpoint: BERT-style entries and ChatTTS's 50 tokens, 21,178 in all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BERT_ENTRIES = 21128
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NAMES = (
    "Sasr", "Pasr", "Easr", "Stts", "Ptts", "Etts", "Sbreak", "Pbreak", "Ebreak", "uv_break", "v_break", "lbreak",
    "llbreak", "undefine", "laugh", "spk_emb", "empty_spk", "music", "pure",
)  # fmt: skip
_NUMBERED = (("break", 8), ("laugh", 3), ("oral", 10), ("speed", 10))
# The order is the released one: ids 21128 to 21177 have meaning ([Ebreak] is 21136, [break_0] is 21147).
CHATTTS_TOKENS = [f"[{name}]" for name in _NAMES] + [
    f"[{stem}_{number}]" for stem, count in _NUMBERED for number in range(count)
]


def write_tokenizer(folder: Path) -> None:
    entries = bert_entries()
    special = [(entries.index(token), token) for token in BERT_SPECIAL]
    special += [(BERT_ENTRIES + index, token) for index, token in enumerate(CHATTTS_TOKENS)]
    added = [
        {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for number, token in special
    ]  # fmt: skip
    named = {
        "cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]",
    }  # fmt: skip
    settings = {
        **named,
        "added_tokens_decoder": {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added},
        "additional_special_tokens": CHATTTS_TOKENS, "clean_up_tokenization_spaces": True, "do_lower_case": True,
        "model_max_length": 1000000000000000019884624838656, "padding_side": "left", "strip_accents": None,
        "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer",
    }  # fmt: skip
    _write(folder / "tokenizer.json", _tokenizer(entries, added))
    _write(folder / "tokenizer_config.json", settings)
    _write(folder / "special_tokens_map.json", {**named, "additional_special_tokens": CHATTTS_TOKENS})


def bert_entries() -> list[str]:
    entries = ["[PAD]", *(f"[unused{n}]" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries += [chr(code) for code in range(33, 127)] + list("，。、！？：；“”‘’（）《》…—")
    entries += ["##" + chr(code) for code in (*range(97, 123), *range(48, 58))]
    return entries + [chr(0x4E00 + n) for n in range(BERT_ENTRIES - len(entries))]


def _tokenizer(entries: list[str], added: list[dict[str, Any]]) -> dict[str, Any]:
    ids = {entry: number for number, entry in enumerate(entries)}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}

    def mark(token: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    single = [mark("[CLS]", 0), first, mark("[SEP]", 0)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": single, "pair": [*single, second, mark("[SEP]", 1)],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": ids},
    }  # fmt: skip


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
