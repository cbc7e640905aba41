"""ChatTTS's own modules behind four verbs: load, check, speak, encode. Knows neither sockets nor time nor text.

Embed, Decoder and DVAE are ChatTTS's, Vocos and LlamaModel what ChatTTS uses; the loop is decode.py. Sizes: B rows,
S prompt tokens, T steps, H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import transformers
from ChatTTS.model import DVAE, Embed
from safetensors.torch import load_file
from vocos import Vocos
from vocos.pretrained import instantiate_class

from chattts_server.engine.checkpoint import Checkpoint
from chattts_server.engine.decode import Weights, decode
from chattts_server.engine.nouns import FinishReason, Submit
from chattts_server.engine.sampling import END_CODE
from chattts_server.engine.sizes import chat_config
from chattts_server.engine.speech_model import DeviceLost, OnStep, Spoken

SPEAKER_TOKEN = 21143  # [spk_emb]: its embedding is replaced by the speaker's
MAX_STEPS = 2048
MAX_TOKENS = 1024
VOCODER_ROWS = 8  # rows per pass of Decoder and Vocos, so that a pass stays short


class ChatModel:
    """A SpeechModel: loaded weights on one device, float32."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        transformers.utils.logging.disable_progress_bar()
        self.config = chat_config(checkpoint.sizes)
        self.device = device
        self._assets = checkpoint.folder / "asset"
        self._embed = _load_embed(self.config, self._assets / "Embed.safetensors", device)
        llama = transformers.LlamaModel.from_pretrained(self._assets / "gpt", dtype=torch.float32).to(device).eval()
        self._weights = Weights(
            llama=llama,
            heads=torch.cat([head.weight.detach() for head in self._embed.head_code]),  # weight_norm folded
            codes=torch.stack([code.weight.detach() for code in self._embed.emb_code]),
            rows_end=checkpoint.rows_end,
        )
        self._decoder = self._dvae("Decoder", asdict(self.config.decoder), self.config.decoder.idim)
        self._vocos = _load_vocos(self.config, self._assets / "Vocos.safetensors", device)
        self._voice_encoder: DVAE | None = None

    def problem(self, row: Submit) -> str | None:
        """Why a row may not reach the device; None: it may. A bad id on a GPU would end the whole process."""
        config = self.config.gpt
        voice = row.voice
        if not 0 < len(row.token_ids) <= MAX_TOKENS:
            return f"{len(row.token_ids)} tokens; 1 to {MAX_TOKENS} are possible"
        if not 0 <= min(row.token_ids) <= max(row.token_ids) < config.num_text_tokens:
            return "a token id is out of range"
        if not 1 <= row.limits.min_steps <= row.limits.max_steps <= MAX_STEPS:
            return f"limits {row.limits.min_steps} to {row.limits.max_steps}; 1 to {MAX_STEPS} steps are possible"
        if voice.embedding and len(voice.embedding) != 4 * config.hidden_size:
            return "the speaker embedding has another width than the model"
        if voice.embedding and not np.isfinite(np.frombuffer(voice.embedding, "<f4")).all():
            return "the speaker embedding is not finite"
        if len(voice.codes) % (2 * config.num_vq) or len(voice.codes) // (2 * config.num_vq) > MAX_TOKENS:
            return "the audio prompt has a wrong shape"
        if voice.codes and int(np.frombuffer(voice.codes, "<u2").max()) >= END_CODE:
            return "a code of the audio prompt is out of range"
        return None

    @torch.inference_mode()
    def speak(self, rows: Sequence[Submit], on_step: OnStep) -> list[Spoken]:
        """One batch from prompt to PCM. All rows agree in sampling (scheduler.agrees)."""
        ids, attention, text_mask = self._prompt(rows)
        embeddings = self._embed(ids, text_mask)
        self._place_speakers(embeddings, ids, rows)
        limits = [row.limits for row in rows]
        try:
            made = decode(self._weights, embeddings, attention, rows[0].sampling, limits, on_step)
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error)) from error
        steps = [hidden.shape[0] for hidden in made.hiddens]
        reasons: list[FinishReason] = [
            "limit" if count >= limit.max_steps else "end" for count, limit in zip(steps, limits, strict=True)
        ]
        pcm = self._vocode(made.hiddens, lambda: on_step(max(steps)))
        return [Spoken(*row) for row in zip(pcm, steps, reasons, strict=True)]

    @torch.inference_mode()
    def encode_voice(self, pcm: np.ndarray) -> bytes:
        """Reference audio, float32 [samples] at 24 kHz -> codes, uint16 (4, n). Loads the encoder at its first use."""
        if self._voice_encoder is None:
            dvae = self.config.dvae
            self._voice_encoder = self._dvae(
                "DVAE", asdict(dvae.decoder), dvae.decoder.idim, asdict(dvae.encoder), asdict(dvae.vq)
            )
        codes = self._voice_encoder.sample_audio(torch.from_numpy(pcm).to(self.device))
        data: bytes = codes.cpu().numpy().astype("<u2").tobytes()
        return data

    def memory_bytes(self) -> dict[str, int]:
        if self.device.type != "cuda":
            return {}
        return {
            "device_allocated": torch.cuda.memory_allocated(self.device),
            "device_reserved": torch.cuda.memory_reserved(self.device),
        }

    def _prompt(self, rows: Sequence[Submit]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ids [B, S, 4], attention [B, S], text mask [B, S]; shorter prompts are padded at the left, codes are last."""
        num_vq = self.config.gpt.num_vq
        codes = np.frombuffer(rows[0].voice.codes, "<u2").astype(np.int64).reshape(num_vq, -1).T  # [n, 4]
        width = max(len(row.token_ids) for row in rows)
        ids = torch.zeros(len(rows), width + len(codes), num_vq, dtype=torch.long)
        attention = torch.zeros(len(rows), width + len(codes), dtype=torch.long)
        for index, row in enumerate(rows):
            start = width - len(row.token_ids)
            ids[index, start:width] = torch.tensor(row.token_ids)[:, None]
            ids[index, width:] = torch.from_numpy(codes.copy())
            attention[index, start:] = 1
        text_mask = attention.bool()
        text_mask[:, width:] = False
        return ids.to(self.device), attention.to(self.device), text_mask.to(self.device)

    def _place_speakers(self, embeddings: torch.Tensor, ids: torch.Tensor, rows: Sequence[Submit]) -> None:
        """The L2-normalised speaker stands where the prompt says [spk_emb]; each row has its own."""
        for index, row in enumerate(rows):
            if row.voice.embedding:
                speaker = torch.from_numpy(np.frombuffer(row.voice.embedding, "<f4").copy()).to(self.device)
                embeddings[index, ids[index, :, 0] == SPEAKER_TOKEN] = torch.nn.functional.normalize(speaker, dim=0)

    def _vocode(self, hiddens: Sequence[torch.Tensor], alive: Callable[[], object]) -> list[np.ndarray]:
        """Hidden states [T, H] per row -> PCM per row. Rows of one length go together: padding alters ends."""
        pcm: list[np.ndarray] = [np.zeros(0, np.float32)] * len(hiddens)
        by_length: dict[int, list[int]] = {}
        for index, hidden in enumerate(hiddens):
            by_length.setdefault(hidden.shape[0], []).append(index)
        for length, members in by_length.items():
            if length == 0:
                continue
            for first in range(0, len(members), VOCODER_ROWS):
                part = members[first : first + VOCODER_ROWS]
                mel = self._decoder(torch.stack([hiddens[index] for index in part]).transpose(1, 2).contiguous())
                waves = self._vocos.decode(mel).float().cpu().numpy()  # [rows, samples]
                if not np.isfinite(waves).all():
                    raise FloatingPointError("the vocoder made values that are not finite")
                for index, wave in zip(part, waves, strict=True):
                    pcm[index] = wave
                alive()
        return pcm

    def _dvae(
        self,
        name: str,
        decoder: dict[str, Any],
        dim: int,
        encoder: dict[str, Any] | None = None,
        vq: dict[str, Any] | None = None,
    ) -> DVAE:
        module = DVAE(decoder, encoder, vq, dim=dim, device=self.device)
        module.load_pretrained(str(self._assets / f"{name}.safetensors"), self.device)
        return module.eval()


def _load_embed(config: Any, path: Any, device: torch.device) -> Embed:
    sizes = config.embed
    embed = Embed(sizes.hidden_size, sizes.num_audio_tokens, sizes.num_text_tokens, sizes.num_vq)
    embed.load_pretrained(str(path), device=device)
    return embed.eval()


def _load_vocos(config: Any, path: Any, device: torch.device) -> Vocos:
    parts = (config.vocos.feature_extractor, config.vocos.backbone, config.vocos.head)
    extractor, backbone, head = (instantiate_class(args=(), init=asdict(part)) for part in parts)
    vocos = Vocos(feature_extractor=extractor, backbone=backbone, head=head)
    vocos.load_state_dict(load_file(path))
    return vocos.to(device).eval()
