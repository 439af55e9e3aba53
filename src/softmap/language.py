"""The sentences, in English and in Chinese. A template's names are filled in by `narrative`."""

from __future__ import annotations

import locale
import os

from softmap.errors import ParameterError

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
    # the tokens
    "tokens_title": {"en": "The tokens", "zh": "词元"},
    "tokens": {
        "en": "The model reads {count} tokens. Special tokens, which stand for no word: {special}.",
        "zh": "模型读到 {count} 个词元。其中不代表任何词的特殊词元：{special}。",
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
    # step 2
    "scaled_title": {"en": "Step 2   scaled = scores / √d_k", "zh": "第二步   scaled = scores / √d_k"},
    "scaled_title_scale": {"en": "Step 2   scaled = scores × scale", "zh": "第二步   scaled = scores × scale"},
    "scaled": {
        "en": "The keys have d_k = {d_k} dimensions, so every score is divided by √{d_k} = {root}.",
        "zh": "键有 d_k = {d_k} 维，所以每个分数都除以 √{d_k} = {root}。",
    },
    "scaled_scale": {
        "en": "This model multiplies every score by {scale} (1/√d_k would be {usual}).",
        "zh": "这个模型把每个分数乘以 {scale}（1/√d_k 是 {usual}）。",
    },
    "gradient": {
        "en": "Why: it keeps softmax's gradients stable. Measured on this head, mean of the rows: without the scale the largest weight of a row would be {w_without}, with it {w_with}; the norm of softmax's gradient is {g_without} without it and {g_with} with it, {change}.",
        "zh": "为什么要除：使 softmax 的梯度保持稳定。在这个头上实测（各行平均）：不缩放时一行中最大的权重是 {w_without}，缩放后是 {w_with}；softmax 梯度的范数不缩放时是 {g_without}，缩放后是 {g_with}，{change}。",
    },
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
    "weights": {
        "en": "Now every number lies between 0 and 1 and each row sums to 1. These are the attention weights, often called the score matrix.",
        "zh": "现在每个数都在 0 与 1 之间，每行之和为 1。这就是注意力权重，也常叫得分矩阵。",
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
    "brought_itself": {"en": "{percent} from itself", "zh": "{percent} 来自自己"},
    "brought": {"en": "{percent} from {key}", "zh": "{percent} 来自 {key}"},
    "brought_rest": {"en": "{percent} from the other {count}", "zh": "{percent} 来自其余 {count} 个"},
    # the last line
    "agreement": {
        "en": "Agreement: this head's output is the model's own to within {difference}{all_heads} (largest absolute difference, {dtype}).",
        "zh": "吻合程度：这个头的输出与模型自己算的相差不超过 {difference}{all_heads}（最大绝对差，{dtype}）。",
    },
    "agreement_all": {"en": "; all {count} heads, {difference}", "zh": "；全部 {count} 个头为 {difference}"},
    "agreement_example": {
        "en": "Every number above follows from x, W_q, W_k and W_v by the four steps; no model is involved.",
        "zh": "以上每个数都由 x、W_q、W_k、W_v 经这四步算出，没有用到模型。",
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
    """One sentence, filled in."""
    return SENTENCES[sentence][language].format(**values)


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
