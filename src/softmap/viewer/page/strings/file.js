// What an exported file says of itself.

export const en = {
  file_holds: "This file holds {whole} of {total} heads whole: {names}. Of the others it holds thumbnails{more}.",
  file_holds_none: "This file holds no head whole, of {total}. It holds thumbnails{more}.",
  file_more: ", and of {names} an overview",
  file_no_tile: "This file holds no map of layer {layer}, head {head}. It holds {names}.",
  file_no_detail: "This file holds an overview of layer {layer}, head {head}: from {cell} × {cell} tokens in a pixel on.",
  file_no_overview: "This file holds the overview of layer {layer}, head {head} with sinks shown, as {hows}.",
  file_no_row: "This file does not hold this row of layer {layer}, head {head}. It holds those of the tokens {rows}.",
  file_no_column: "This file does not hold who looks at a token in layer {layer}, head {head}.",
  file_no_steps: "This file does not hold the steps of layer {layer}, head {head}. It holds those of {names}.",
  file_no_received: "This file does not hold what is received in layer {layer}, head {head}.",
  file_no_matrix: "This file does not hold all heads of layer {layer}.",
  file_no_thumbs: "This file holds no thumbnails of layer {layer}.",
  file_no_roles: "This file does not hold what the heads of layer {layer} do.",
  file_hint: "Export more with --heads, --rows and --limit, or look at the recording: softmap view.",
  file_nothing: "none",
};

export const zh = {
  file_holds: "此文件完整保存了 {total} 个头中的 {whole} 个：{names}。其余只有缩略图{more}。",
  file_holds_none: "此文件没有完整保存任何头（共 {total} 个），只有缩略图{more}。",
  file_more: "，以及 {names} 的概览",
  file_no_tile: "此文件没有第 {layer} 层第 {head} 头的图。它保存了 {names}。",
  file_no_detail: "此文件只有第 {layer} 层第 {head} 头的概览：每像素不少于 {cell} × {cell} 个词元。",
  file_no_overview: "此文件中第 {layer} 层第 {head} 头的概览只有显示汇的一种，为 {hows}。",
  file_no_row: "此文件没有第 {layer} 层第 {head} 头的这一行。它保存了词元 {rows} 的行。",
  file_no_column: "此文件没有保存第 {layer} 层第 {head} 头中谁看向一个词元。",
  file_no_steps: "此文件没有第 {layer} 层第 {head} 头的步骤。它保存了 {names} 的。",
  file_no_received: "此文件没有保存第 {layer} 层第 {head} 头中各词元得到的注意力。",
  file_no_matrix: "此文件没有保存第 {layer} 层的所有头。",
  file_no_thumbs: "此文件没有第 {layer} 层的缩略图。",
  file_no_roles: "此文件没有保存第 {layer} 层各头的作用。",
  file_hint: "用 --heads、--rows 和 --limit 可导出更多，或用 softmap view 查看记录。",
  file_nothing: "无",
};
