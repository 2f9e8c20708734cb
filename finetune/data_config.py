"""The settings of data: files, columns, kinds of task, splits."""

from dataclasses import dataclass

from finetune.declaration import Range, setting

LONGEST_ANSWER = 30  # tokens of an answer to a question
_ASPECTS = ("auto", "stretched", "kept")
_RESAMPLINGS = ("auto", "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass
class DataConfig:
    name: str = setting(
        "r8",
        "a packaged set (r8, r52, 20newsgroups, digits), tfds:NAME, the directory of a prepared TFDS builder, a .csv, "
        ".tsv or .jsonl file or a directory of them called train, validation and test, an image folder "
        "(split/class/file), or an .npz file with arrays x_train, y_train and so on",
    )
    task: str = setting(
        "classification",
        "what a label is: one class (classification), any number of classes (multilabel), a number (regression), a "
        "class for each word (tokens): .jsonl rows with a list of words and one of tags, which of several texts goes "
        "with the first (choice), words of the second text that answer the first (question_answering), or none: two "
        "texts of a row belong together, others do not (contrastive)",
        ("classification", "multilabel", "regression", "tokens", "choice", "question_answering", "contrastive"),
    )
    text_column: str = setting("text", "of delimited files and TFDS sets")
    text_columns: tuple[str, ...] = setting(
        (),
        "in place of text_column, the two of a pair of texts, such as premise,hypothesis, or of choice the first text "
        "and all choices, of which the label is a name or a number from 0; empty = there is one text",
    )
    label_column: str = setting("label", "of delimited files and TFDS sets")
    label_separator: str = setting("|", "of the labels in a field, for multilabel; a .jsonl file may hold lists")
    tokenizer: str = setting("", "path of a tokenizer.json; empty = the one beside the pretrained weights")
    max_length: int = setting(0, "tokens; longer texts are cut; 0 = as the pretrained weights declare, else 128")
    image_size: int = setting(0, "pixels, edge; 0 = as the pretrained weights declare, else as stored")
    image_resampling: str = setting("auto", "when scaled; auto = as the weights declare, else bilinear", _RESAMPLINGS)
    image_crop: float = setting(0.0, "share kept of the edge of what is scaled; 0 = as declared, else 1", Range(0, 1))
    image_aspect: str = setting("auto", "when scaled; auto = as declared, else stretched", _ASPECTS)
    train_examples: int = setting(0, "stratified subset of the training split; 0 = all")
    validation_examples: int = setting(0, "taken from the training split if the set has none; 0 = a fifth of it")
    split_seed: int = setting(0, "of the validation split and the subset")
    classes: tuple[str, ...] = setting((), "keep only these labels; empty = all")
