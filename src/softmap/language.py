"""The sentences, in English and in Chinese. A template's names are filled in by `narrative`."""

from __future__ import annotations

import locale
import math
import os
from collections.abc import Iterator
from functools import reduce
from typing import TYPE_CHECKING, Any

from softmap.errors import ParameterError
from softmap.escaping import escaped

if TYPE_CHECKING:
    from softmap.masks import Mask
    from softmap.mechanism import Steps
    from softmap.telling import Added

LANGUAGES = ("en", "zh")

SENTENCES: dict[str, dict[str, str]] = {
    # where the numbers come from
    "source": {
        "en": "{model}{revision}, {dtype}: {layers} layers of {heads} heads. This is layer {layer}, head {head}, counted from 0.",
        "zh": "{model}{revision}，{dtype}：{layers} 层，每层 {heads} 个头。这里是第 {layer} 层、第 {head} 号头（编号从 0 开始）。",
    },
    "source_example": {
        "en": "The worked example: small whole numbers made for these three words, with d_k = {d_k}.",
        "zh": "示例：为这三个词设计的小整数，d_k = {d_k}。",
    },
    "source_own": {
        "en": "Given numbers, no model's, with d_k = {d_k}.",
        "zh": "给定的数，不出自模型，d_k = {d_k}。",
    },
    "source_told": {
        "en": "Of its {layers} attention layers those can be told in which the tokens of the text look at each other: {told}. This one is {path} in the model.",
        "zh": "它的 {layers} 个注意力层中，能讲的是文本的词元互相关注的那些：{told}。这一层在模型中是 {path}。",
    },
    "source_kept": {
        "en": "The recording holds {layers} of the model's attention layers, by their numbers in the model. This one is {path}.",
        "zh": "记录中有模型的 {layers} 个注意力层，用的是它们在模型中的编号。这一层是 {path}。",
    },
    "source_stored": {
        "en": "The recording keeps q, k and v in {stored}, so what follows is computed from rounded ones.",
        "zh": "记录以 {stored} 保存 q、k、v，所以下面的数是由舍入后的值算出的。",
    },
    "source_missing": {
        "en": "The recording is incomplete: {missing}.",
        "zh": "这份记录不完整：{missing}。",
    },
    "chosen": {
        "en": "softmap chose it from {among}, because here words look most at other words, not only at a neighbour: {others} of their attention, with {special} on special tokens and {itself} on themselves.",
        "zh": "softmap 从{among}中选了它，因为在这个头里，词最关注其他词（而不只是相邻的词）：{others} 的注意力给其他词，{special} 给特殊词元，{itself} 给自己。",
    },
    "chosen_positional": {
        "en": "softmap chose it from {among}, all of which look mainly at a neighbour, because here words look most at other words: {others} of their attention, with {special} on special tokens and {itself} on themselves.",
        "zh": "softmap 从{among}中选了它：它们都主要看相邻的词元，而在这个头里，词最关注其他词：{others} 的注意力给其他词，{special} 给特殊词元，{itself} 给自己。",
    },
    "chosen_single": {
        "en": "softmap chose it from {among}, because the text has one word, and here that looks least at special tokens: {special} of its attention.",
        "zh": "softmap 从{among}中选了它，因为文本只有一个词，而它在这里最少关注特殊词元：{special} 的注意力。",
    },
    "chosen_from_all": {"en": "all heads", "zh": "所有的头"},
    "chosen_from_layer": {"en": "the heads of layer {layer}", "zh": "第 {layer} 层的头"},
    "chosen_from_head": {"en": "the heads numbered {head} of all layers", "zh": "各层的第 {head} 号头"},
    "table": {
        "en": "Other heads to look at: --layer (down) and --head (across). In each, % of the words' attention that goes to special tokens",
        "zh": "可选的其他头：--layer（行）与 --head（列）。各头中词的注意力给特殊词元的百分比",
    },
    "table_others": {
        "en": "Other heads to look at: --layer (down) and --head (across). In each, % of the words' attention that goes to other words",
        "zh": "可选的其他头：--layer（行）与 --head（列）。各头中词的注意力给其他词的百分比",
    },
    # the tokens
    "tokens_title": {"en": "The tokens", "zh": "词元"},
    "tokens": {
        "en": "The model reads {count} tokens. Special tokens, which stand for no word: {special}.",
        "zh": "模型读到 {count} 个词元。其中不代表任何词的特殊词元：{special}。",
    },
    "tokens_alone": {
        "en": "The model reads {count} tokens, none of which is special.",
        "zh": "模型读到 {count} 个词元，其中没有特殊词元。",
    },
    "tokens_plain": {"en": "{count} tokens, one a word.", "zh": "{count} 个词元，每个词一个。"},
    "unknown": {
        "en": "The model does not know {words}: it reads [UNK] for each, the same for all.",
        "zh": "模型的词表里没有 {words}：读到的都是 [UNK]，对它来说没有区别。",
    },
    "pieces": {"en": "{word} is read in pieces: {pieces}.", "zh": "{word} 被拆成几段：{pieces}。"},
    "pieces_more": {"en": "{count} more words are read in pieces.", "zh": "另有 {count} 个词被拆成几段。"},
    "cut": {
        "en": "The text was cut to the model's limit: its last {count} tokens were not read, from {start} on.",
        "zh": "文本按模型上限截断：末尾 {count} 个词元没有读入，从 {start} 开始。",
    },
    "long": {
        "en": "With {count} tokens the text is longer than a page of {page}, so the story tells the row of {row} alone.",
        "zh": "文本有 {count} 个词元，超过一页（{page} 个），所以这里只讲 {row} 这一行。",
    },
    # x to q, k, v
    "projection_title": {"en": "From x to q, k and v", "zh": "由 x 得到 q、k、v"},
    "projection": {
        "en": "Each token enters the layer as a row of x. Three learned matrices (and biases, where the model has them) turn it into a query (what it looks for), a key (what it is found by) and a value (what it passes on).",
        "zh": "每个词元以 x 的一行进入这一层。三个训练得到的矩阵（有的模型还有偏置）把它变成查询（它要找什么）、键（凭什么被找到）和值（它传递什么）。",
    },
    "projection_title_given": {"en": "q, k and v", "zh": "q、k、v"},
    "projection_given": {
        "en": "Each token's query (what it looks for), key (what it is found by) and value (what it passes on), as attention takes them: with all that the model does to make them, learned matrices, and in many models positions, norms or scales besides.",
        "zh": "每个词元的查询（它要找什么）、键（凭什么被找到）和值（它传递什么），即注意力实际用到的：模型为得到它们所做的都已在内，有训练得到的矩阵，许多模型还有位置、归一化或缩放。",
    },
    "projection_own": {
        "en": "Each token's query (what it looks for), key (what it is found by) and value (what it passes on).",
        "zh": "每个词元的查询（它要找什么）、键（凭什么被找到）和值（它传递什么）。",
    },
    "projection_none": {
        "en": "What came before the scores was not given.",
        "zh": "得分之前的数没有给出。",
    },
    "projection_values": {
        "en": "What came before the scores was not given; each token's value is what it passes on.",
        "zh": "得分之前的数没有给出；每个词元的值是它传递的内容。",
    },
    "strip_cut": {"en": "first {shown} of {total} numbers", "zh": "{total} 个数中的前 {shown} 个"},
    "strip_range": {"en": "shades span ±{range}", "zh": "色阶范围 ±{range}"},
    # step 1
    "scores_title": {"en": "Step 1   scores = q kᵀ", "zh": "第一步   scores = q kᵀ"},
    "scores": {
        "en": "Row by row, the dot product of one token's query with every token's key: how similar they are.",
        "zh": "每一行是一个词元的查询与所有词元的键的点积，表示它们有多相似。",
    },
    "scores_read": {
        "en": "{query}'s query is most similar to the key of {best} ({high}), least to that of {worst} ({low}).",
        "zh": "{query} 的查询与 {best} 的键最相似（{high}），与 {worst} 的键最不相似（{low}）。",
    },
    "scores_read_self": {
        "en": "{query}'s query is most similar to its own key ({high}), least to that of {worst} ({low}).",
        "zh": "{query} 的查询与自己的键最相似（{high}），与 {worst} 的键最不相似（{low}）。",
    },
    "scores_read_one": {
        "en": "{query}'s query meets one key alone, its own ({high}).",
        "zh": "{query} 的查询只遇到一个键，即它自己的（{high}）。",
    },
    "scores_read_only": {
        "en": "{query}'s query meets one key alone, that of {best} ({high}).",
        "zh": "{query} 的查询只遇到一个键，即 {best} 的（{high}）。",
    },
    "scores_visible": {
        "en": "The sentences below are of the keys that each token may see; step 2 hides the others.",
        "zh": "下面各句只说每个词元能看到的键；其余的在第二步被掩去。",
    },
    "sees_nothing": {"en": "{query} may see no key.", "zh": "{query} 看不到任何键。"},
    # step 2
    "scaled_title": {"en": "Step 2   scaled = {formula}", "zh": "第二步   scaled = {formula}"},
    "scaled": {
        "en": "The keys have d_k = {d_k} dimensions, so every score is divided by √{d_k} = {root}.",
        "zh": "键有 d_k = {d_k} 维，所以每个分数都除以 √{d_k} = {root}。",
    },
    "scaled_scale": {
        "en": "Every score is multiplied by {scale} (1/√d_k would be {usual}).",
        "zh": "每个分数都乘以 {scale}（1/√d_k 是 {usual}）。",
    },
    "softcap": {
        "en": "Then a soft cap bends them, {cap} · tanh(x / {cap}), so that none is beyond ±{cap}.",
        "zh": "再用软上限 {cap} · tanh(x / {cap}) 压弯，使它们都不超出 ±{cap}。",
    },
    "bias": {
        "en": "Then a bias is added, {kind} (here from {low} to {high}).",
        "zh": "再加上偏置，{kind}（这里从 {low} 到 {high}）。",
    },
    "bias_unseen": {
        "en": "Then a bias is added, {kind}.",
        "zh": "再加上偏置，{kind}。",
    },
    "bias_of_distances": {
        "en": "a number for each distance between query and key",
        "zh": "查询与键之间每种距离一个数",
    },
    "bias_of_pairs": {"en": "a number for each query and key", "zh": "每对查询与键一个数"},
    "mask": {
        "en": "Then the mask: each token sees {seen}. What it may not see stands as −∞, and gets no weight.",
        "zh": "再加掩码：每个词元能看到{seen}。看不到的写作 −∞，权重为 0。",
    },
    "mask_causal": {"en": "itself and the tokens before it", "zh": "自己和它之前的词元"},
    "mask_back": {"en": "itself and the {left} tokens before it", "zh": "自己和它之前的 {left} 个词元"},
    "mask_window": {
        "en": "itself, the {left} tokens before it and the {right} after it",
        "zh": "自己、它之前的 {left} 个和之后的 {right} 个词元",
    },
    "mask_chunked": {"en": "its own chunk of {size} tokens", "zh": "它所在的 {size} 个词元的一段"},
    "mask_documents": {"en": "the tokens of its own document", "zh": "它所在文档的词元"},
    "mask_prefix": {"en": "the first {count} tokens", "zh": "前 {count} 个词元"},
    "mask_padding": {"en": "the tokens that are no padding", "zh": "不是填充的词元"},
    "mask_other": {"en": "what the model's own mask shows it, {name}", "zh": "模型自己的掩码 {name} 允许的词元"},
    "mask_and": {"en": "{one}, within {other}", "zh": "{one}（且限于{other}）"},
    "mask_or": {"en": "{one}, as well as {other}", "zh": "{one}，以及{other}"},
    "gradient": {
        "en": "Why: it keeps softmax's gradients stable. Measured on this head, mean of the rows: without the scale{rest} the largest weight of a row would be {w_without}, with it {w_with}; the norm of softmax's gradient is {g_without} without it and {g_with} with it, {change}.",
        "zh": "为什么要除：使 softmax 的梯度保持稳定。在这个头上实测（各行平均）：不缩放{rest}时一行中最大的权重是 {w_without}，缩放后是 {w_with}；softmax 梯度的范数不缩放时是 {g_without}，缩放后是 {g_with}，{change}。",
    },
    "gradient_rest": {"en": " (and all else as it is)", "zh": "（其余不变）"},
    "gradient_changed": {"en": "{times} times as large", "zh": "是前者的 {times} 倍"},
    "gradient_grew_much": {"en": "over a million times as large", "zh": "是前者的一百万倍以上"},
    "gradient_table": {
        "en": "largest weight of each row, and norm of softmax's gradient, before and after the scale",
        "zh": "每行的最大权重与 softmax 梯度的范数：缩放前与缩放后",
    },
    "weight_before": {"en": "weight before", "zh": "权重(前)"},
    "weight_after": {"en": "weight after", "zh": "权重(后)"},
    "gradient_before": {"en": "grad. before", "zh": "梯度(前)"},
    "gradient_after": {"en": "grad. after", "zh": "梯度(后)"},
    # step 3
    "weights_title": {
        "en": "Step 3   weights = softmax(scaled), row by row",
        "zh": "第三步   weights = softmax(scaled)，逐行",
    },
    "weights_title_sink": {
        "en": "Step 3   weights = softmax([scaled, sink]), row by row",
        "zh": "第三步   weights = softmax([scaled, sink])，逐行",
    },
    "weights": {
        "en": "Now every number lies between 0 and 1 and each row sums to 1. These are the attention weights, often called the score matrix.",
        "zh": "现在每个数都在 0 与 1 之间，每行之和为 1。这就是注意力权重，也常叫得分矩阵。",
    },
    "weights_sink": {
        "en": "Now every number lies between 0 and 1. A sink, one learned logit ({logit} in this head) that stands for no token, takes part in each row and gets a share of it, {share} on average here; the weights sum to what is left. They are the attention weights, often called the score matrix.",
        "zh": "现在每个数都在 0 与 1 之间。每一行还有一个“汇”参与：一个训练得到的、不代表任何词元的数（这个头里是 {logit}），它分走一份，这里平均为 {share}；各权重之和是余下的部分。这就是注意力权重，也常叫得分矩阵。",
    },
    "merged": {
        "en": "From here on in words: attention to a word adds its pieces up, attention from a word averages them.",
        "zh": "从这里起按词来看：对一个词的注意力是对它各段之和，来自一个词的注意力是各段的平均。",
    },
    "looks_back": {
        "en": "This is a previous-token head: {share} of the weight goes to the token just before.",
        "zh": "这是一个“前一词元”头：{share} 的权重给紧挨着的前一个词元。",
    },
    "looks_ahead": {
        "en": "This is a next-token head: {share} of the weight goes to the token just after.",
        "zh": "这是一个“后一词元”头：{share} 的权重给紧挨着的后一个词元。",
    },
    "weights_read": {"en": "{query}: {shares}.", "zh": "{query}：{shares}。"},
    "share_itself": {"en": "{percent} itself", "zh": "{percent} 给自己"},
    "share": {"en": "{percent} {key}", "zh": "{percent} 给 {key}"},
    "share_rest": {"en": "{percent} the other {count}", "zh": "{percent} 给其余 {count} 个"},
    "share_sink": {"en": "{percent} the sink", "zh": "{percent} 给汇"},
    # step 4
    "output_title": {"en": "Step 4   output = weights v", "zh": "第四步   output = weights v"},
    "output": {
        "en": "Each word's new representation z is the sum of all value vectors, weighted by its row.",
        "zh": "每个词的新表示 z 是所有值向量按它那一行加权之和。",
    },
    "output_pieces": {
        "en": "Of a word in several pieces, z is the mean over them, and v their mean weighted by this row.",
        "zh": "对由几段组成的词，z 是各段的平均，v 是各段按这一行加权的平均。",
    },
    "output_shares": {
        "en": "How much each value vector brings, ‖w·v‖, as a share of its row (a large weight on a short vector brings little)",
        "zh": "每个值向量贡献多少：‖w·v‖ 占该行的比例（权重大而向量短，贡献也小）",
    },
    "output_read": {"en": "z({query}) comes {shares}.", "zh": "z({query})：{shares}。"},
    "output_none": {
        "en": "There are no values v here, so there is no output to tell.",
        "zh": "这里没有值 v，所以没有输出可讲。",
    },
    "brought_itself": {"en": "{percent} from itself", "zh": "{percent} 来自自己"},
    "brought": {"en": "{percent} from {key}", "zh": "{percent} 来自 {key}"},
    "brought_rest": {"en": "{percent} from the other {count}", "zh": "{percent} 来自其余 {count} 个"},
    # the last line
    "agreement": {
        "en": "Agreement: this head's output is that of the model's own attention function to within {difference}{all_heads} (largest absolute difference, in float32{where}).",
        "zh": "吻合程度：这个头的输出与模型自己的注意力函数算的相差不超过 {difference}{all_heads}（最大绝对差，float32{where}）。",
    },
    "agreement_some": {"en": ", at {rows} of {count} tokens", "zh": "，比较了 {count} 个词元中的 {rows} 个"},
    "agreement_recorded": {
        "en": "Agreement: when it was recorded, this layer's output was that of the model's own attention function to within {difference} (largest absolute difference, in float32, at the tokens that were compared).",
        "zh": "吻合程度：记录时，这一层的输出与模型自己的注意力函数算的相差不超过 {difference}（所比较的词元上的最大绝对差，float32）。",
    },
    "agreement_none": {
        "en": "Agreement: not compared, for there was no output of the model's own attention function to compare with.",
        "zh": "吻合程度：没有比较，因为没有模型自己的注意力函数的输出可比。",
    },
    "agreement_all": {"en": "; all {count} heads, {difference}", "zh": "；全部 {count} 个头为 {difference}"},
    "agreement_example": {
        "en": "Every number above follows from x, W_q, W_k and W_v by the four steps; no model is involved.",
        "zh": "以上每个数都由 x、W_q、W_k、W_v 经这四步算出，没有用到模型。",
    },
    "agreement_own": {
        "en": "Every number above follows, by the four steps, from those that were given; no model is involved.",
        "zh": "以上每个数都由给出的数经这四步算出，没有用到模型。",
    },
    # what a page could not hold
    "left_out": {
        "en": "Too large for this page: {row} alone{keys}. Left out: {left}.",
        "zh": "显示不下：只显示 {row}{keys}。未显示：{left}。",
    },
    "left_out_top": {"en": ", with its top {count} keys", "zh": "及其前 {count} 个键"},
    "left_out_rows": {"en": "{count} other rows", "zh": "其余 {count} 行"},
    "left_out_keys": {"en": "{count} other keys", "zh": "其余 {count} 个键"},
    "left_out_page": {
        "en": "One pixel a number; beside it the top keys of one row. {rows} other rows and {keys} other keys are in the picture alone.",
        "zh": "每个像素是一个数；旁边是其中一行的前几个键。其余 {rows} 行与 {keys} 个键只在图中。",
    },
    "left_out_readings": {
        "en": "{count} more rows can be read with --row or --json.",
        "zh": "另外 {count} 行可用 --row 或 --json 查看。",
    },
    "sum": {"en": "sum", "zh": "合计"},
    "other_tokens": {"en": "{count} more tokens", "zh": "另外 {count} 个词元"},
    "page_hint": {"en": "Choose a word, or click on a row:", "zh": "选一个词，或点一行："},
    "figure_left_out": {
        "en": "Lines to the top {count} keys alone. Left out: {left}.",
        "zh": "只画到前 {count} 个键的线。未画：{left}。",
    },
    "figure_title": {"en": "{row} relates to every word", "zh": "{row} 与每个词的关系"},
}


def say(language: str, sentence: str, **values: object) -> str:
    """One sentence, filled in; what does not show in a text is written as escapes."""
    shown = {name: escaped(value) if isinstance(value, str) else value for name, value in values.items()}
    return SENTENCES[sentence][language].format(**shown)


def describe_step_2(steps: Steps, added: Added, tokens: int, language: str) -> tuple[str, str]:
    """The formula of step 2, and what it does in words: the scale, and what the model does besides."""
    usual = 1 / math.sqrt(steps.d_k)
    if math.isclose(steps.scale, usual, rel_tol=1e-6):
        formula, said = "scores / √d_k", [say(language, "scaled", d_k=steps.d_k, root=f"{math.sqrt(steps.d_k):.4g}")]
    else:
        numbers = {"scale": f"{steps.scale:.4g}", "usual": f"{usual:.4g}"}
        formula, said = "scores × scale", [say(language, "scaled_scale", **numbers)]
    if added.softcap is not None:
        formula = f"softcap({formula})"
        said.append(say(language, "softcap", cap=f"{added.softcap:g}"))
    if added.bias is not None:
        formula += " + bias"
        said.append(_describe_bias(steps, added, language))
    seen = "" if added.mask is None else describe_mask(added.mask, tokens, language)
    if seen:
        formula += " + mask"
        said.append(say(language, "mask", seen=seen))
    return formula, ("" if language == "zh" else " ").join(said)


def _describe_bias(steps: Steps, added: Added, language: str) -> str:
    """What a bias depends on, and what it comes to: what step 2 has beyond the scale and the cap."""
    import numpy as np

    from softmap.biases import _Alibi, _Relative

    kind = say(language, "bias_of_distances" if isinstance(added.bias, _Alibi | _Relative) else "bias_of_pairs")
    capped: Any = steps.scores * steps.scale
    capped = capped if added.softcap is None else added.softcap * np.tanh(capped / added.softcap)
    numbers = (steps.scaled - capped)[np.isfinite(steps.scaled)]
    if not numbers.size:  # the rows that are told see nothing
        return say(language, "bias_unseen", kind=kind)
    return say(language, "bias", kind=kind, low=f"{numbers.min():.2f}", high=f"{numbers.max():.2f}")


def describe_mask(mask: Mask, tokens: int, language: str) -> str:
    """What each of so many tokens sees, as the object of a sentence; empty where that is all of them."""
    from softmap.masks.kinds import Window

    parts = list(_parts(mask))
    windows = [part for part in parts if isinstance(part, Window)]
    left, right = (
        min((end for end in ends if end is not None and end < tokens - 1), default=None)
        for ends in ([window.left for window in windows], [window.right for window in windows])
    )
    seen = [_describe_window(left, right, tokens, language)]
    seen += [_describe_part(part, tokens, language) for part in parts if not isinstance(part, Window)]
    seen = [part for part in seen if part]
    return reduce(lambda one, other: say(language, "mask_and", one=one, other=other), seen) if seen else ""


def _parts(mask: Mask) -> Iterator[Mask]:
    """The masks of which a token must pass each."""
    from softmap.masks.base import And

    if isinstance(mask, And):
        yield from _parts(mask.one)
        yield from _parts(mask.other)
    else:
        yield mask


def _describe_window(left: int | None, right: int | None, tokens: int, language: str) -> str:
    if left is None and right is None:
        return ""
    if right == 0:
        return say(language, "mask_causal") if left is None else say(language, "mask_back", left=left)
    ends = {"left": tokens - 1 if left is None else left, "right": tokens - 1 if right is None else right}
    return say(language, "mask_window", **ends)


def _describe_part(mask: Mask, tokens: int, language: str) -> str:
    from softmap.masks import base, kinds

    if isinstance(mask, kinds.Full) or (isinstance(mask, kinds.Chunked) and mask.size >= tokens):
        return ""
    if isinstance(mask, base.Or):
        one, other = (describe_mask(side, tokens, language) for side in (mask.one, mask.other))
        return say(language, "mask_or", one=one, other=other) if one and other else ""
    names = {
        kinds.Chunked: "mask_chunked",
        kinds.Documents: "mask_documents",
        kinds.Prefix: "mask_prefix",
        kinds.Padding: "mask_padding",
    }
    size, count = getattr(mask, "size", 0), getattr(mask, "n", 0)
    return say(language, names.get(type(mask), "mask_other"), size=size, count=count, name=f"`{mask!r}`")


def choose_language(asked: str | None) -> str:
    """The language asked for; else the locale's, English unless it is Chinese.

    Raises:
        ParameterError: a language there are no sentences in.
    """
    if asked is not None:
        if asked not in LANGUAGES:
            raise ParameterError("lang", " or ".join(LANGUAGES), repr(asked), "Leave it out to follow the locale.")
        return asked
    names = (os.environ.get(variable) for variable in ("LC_ALL", "LC_MESSAGES", "LANG"))
    name = next((name for name in names if name), None) or locale.getlocale()[0] or ""
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"
