"""The ideas whose worth `tests.benchmarks.ablations` measures: what to train with each and what without."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Ablation:
    """`metric` of config `full` should be above that of `without`, which lacks the idea and shares the rest; or, of
    an idea that saves time, no more than `within` below it. "pipeline@stage" is a stage with all that it needs."""

    claim: str
    metric: str
    full: str
    without: str
    within: float = 0.0


ABLATIONS = {
    "fm": Ablation("pairs of features add to their sum", "valid/auc", "fm_mall", "lr_mall"),
    "dnn": Ablation("a deep tower adds to pairs", "valid/auc", "dnn_mall", "fm_mall"),
    "dcnv2": Ablation("crosses add to the deep tower beside them", "valid/auc", "dcnv2_mall", "dnn_mall"),
    "deep": Ablation("a deep part adds to the wide one", "valid/auc", "wide_deep_mall", "lr_mall"),
    "wide": Ablation("a wide part adds to the deep one", "valid/auc", "wide_deep_mall", "dnn_mall"),
    "deepfm": Ablation("pairs add to the deep tower on the same embeddings", "valid/auc", "deepfm_mall", "dnn_mall"),
    "dcn": Ablation("vector crosses add to the deep tower beside them", "valid/auc", "dcn_mall", "dnn_mall"),
    "xdeepfm": Ablation(
        "compressed interactions add to the linear and the deep part",
        "valid/auc",
        "xdeepfm_mall",
        "xdeepfm_mall model.cin=",
    ),
    "autoint": Ablation("attention across fields beats plain pairs", "valid/auc", "autoint_mall", "fm_mall"),
    "autoint_residual": Ablation(
        "a field keeps what it was", "valid/auc", "autoint_mall", "autoint_mall model.residual=None"
    ),
    "finalmlp_fusion": Ablation(
        "products of two streams beat their sum", "valid/auc", "finalmlp_mall", "finalmlp_mall model.fusion=sum"
    ),
    "finalmlp_gates": Ablation(
        "streams that weigh the features beat streams that do not",
        "valid/auc",
        "finalmlp_mall",
        "finalmlp_mall model.gates=False",
    ),
    "din": Ablation(
        "weighing the history by the candidate beats its mean, in one tower",
        "valid/gauc",
        "din_mall",
        "dnn_mall model.mlp.widths=200,80 model.mlp.activation=dice",
    ),
    "mmoe": Ablation(
        "a gate for each task over shared experts beats one shared trunk",
        "valid/purchase/auc/expected",
        "mmoe_mall",
        "shared_bottom_mall",
    ),
    "esmm": Ablation(
        "conversion learned from all impressions ranks all of them better than that of clicked ones",
        "valid/cvr/auc/expected",
        "esmm_mall",
        "esmm_mall task.heads.purchase.weight=0 task.heads.cvr.weight=1",
    ),
    "presto": Ablation(
        "the rare last step gains from slopes shared with those before",
        "valid/purchase/auc/expected",
        "presto_mall",
        "presto_mall task.linked=False model.strength=0",
    ),
    "tin_product": Ablation(
        "the product of behaviour and target adds to attention",
        "valid/gauc",
        "tin_mall",
        "tin_mall model.product=False",
    ),
    "tin_positions": Ablation(
        "how long ago a behaviour was matters", "valid/gauc", "tin_mall", "tin_mall model.positions=False"
    ),
    "dien": Ablation(
        "interests that evolve beat attention alone", "valid/gauc", "dien_mall", "dien_mall model.evolution=attention"
    ),
    "dare": Ablation(
        "tables of their own for the search beat shared ones",
        "valid/gauc",
        "dare_mall",
        "dare_mall model.tables=shared",
    ),
    "dare_width": Ablation(
        "attention tables of a quarter of the width find as well",
        "valid/auc",
        "dare_mall model.attention_dim=4",
        "dare_mall",
        within=0.001,
    ),
    "sdim": Ablation(
        "hash collisions stand in for the unit over the whole history",
        "valid/auc",
        "sdim_mall",
        "sdim_mall model.hashes=0",
        within=0.002,
    ),
    "qin_relu": Ablation(
        "attention that does not sum to one counts what is alike",
        "valid/auc",
        "qin_mall",
        "qin_mall model.normalise=softmax",
    ),
    "aw_moe": Ablation(
        "experts mixed by the history beat one tower of as many parameters",
        "valid/auc",
        "aw_moe_mall",
        "aw_moe_mall model.experts=1 model.mlp.widths=557,64",
    ),
    "aw_moe_contrast": Ablation(
        "a gate that hidden behaviours do not change",
        "valid/auc",
        "aw_moe_mall",
        "aw_moe_mall model.contrast=0",
    ),
    "sasrec": Ablation(
        "full softmax beats binary with one negative", "test/ndcg@20", "sasrec_mall", "sasrec_mall task.objective=bce"
    ),
    "sasrec_attention": Ablation(
        "attention reads a history better than a recurrent state", "test/ndcg@20", "sasrec_mall", "gru_mall"
    ),
    "hstu_silu": Ablation(
        "attention that does not sum to one beats softmax in the same block",
        "test/ndcg@20",
        "hstu_mall",
        "hstu_mall model.weighing=softmax",
    ),
    "hstu_bias": Ablation(
        "a bias by the distance of two items adds to positions",
        "test/ndcg@20",
        "hstu_mall",
        "hstu_mall model.bias=False",
    ),
    "mixture": Ablation(
        "counts and a linear model add to a transformer", "test/ndcg@20", "mixture_mall@mixture", "sasrec_mall"
    ),
    "two_tower": Ablation(
        "logQ undoes the popularity bias of in-batch negatives",
        "test/recall@10",
        "two_tower_mall",
        "two_tower_mall task.logq=None",
    ),
    "image_text": Ablation(
        "listings of one product are no negatives of each other",
        "test/recall@10",
        "image_text_mall",
        "image_text_mall task.label=None",
    ),
    "cope": Ablation(
        "losses across domains find the page of a live stream",
        "test/live-page/recall@1",
        "cope_mall",
        "cope_mall task.cross=0",
    ),
    "cope_messages": Ablation(
        "frames that hear of each other see past those that show something else",
        "test/page-live/recall@1",
        "cope_mall",
        "cope_mall model.frames.messages=False",
    ),
    "cope_classes": Ablation(
        "a large-margin classifier of products helps on those seen",
        "seen/page-live/recall@1",
        "cope_mall",
        "cope_mall task.classify=0",
    ),
    "cope_classes_unseen": Ablation(
        "and costs those not seen no more than a point",
        "test/page-live/recall@1",
        "cope_mall",
        "cope_mall task.classify=0",
        within=0.01,
    ),
    "cope_speech": Ablation(
        "cleaned speech adds to frames",
        "test/video-page/recall@1",
        "cope_speech_mall ...cleaner.error=0.1",
        "cope_mall",
    ),
    "cope_cleaned": Ablation(
        "speech helps more once a cleaner has been over it",
        "test/video-page/recall@1",
        "cope_speech_mall ...cleaner.error=0.1",
        "cope_speech_mall ...asr=raw",
    ),
    "esspr_both": Ablation(
        "words learned beside pictures find what stock photos hide",
        "hardware/both-offer_both/recall@1",
        "esspr_mall",
        "esspr_mall task.across=pictures task.distinct=0 task.local=0",
    ),
    "esspr_across": Ablation(
        "modalities matched across the pair find each other",
        "test/text-offer_image/recall@10",
        "esspr_mall",
        "esspr_mall task.across=alike task.distinct=0",
    ),
    "esspr_distinct": Ablation(
        "modalities of one product drawn together find each other across products",
        "test/image-offer_both/recall@10",
        "esspr_mall",
        "esspr_mall task.distinct=0",
    ),
    "esspr_rules": Ablation(
        "pairs by category and several users teach more than all clicks",
        "test/both-offer_both/recall@1",
        "esspr_mall",
        "esspr_mall source.rule.users=1 source.rule.category=False",
    ),
    "ved_clicks": Ablation(
        "clicks teach pictures what searchers want",
        "logged/auc",
        "ved_mall@with_clicks",
        "ved_mall@self_supervised",
    ),
    "ved_pool": Ablation(
        "a category-aware pool beats all of the batch as negatives",
        "style/query-item/recall@10",
        "ved_mall@clicked",
        "ved_mall@clicked stages.clicked.experiment.task.pool=batch",
    ),
    "ved_joint": Ablation(
        "self-supervision beside the clicks keeps the tail",
        "uniform/tail/auc",
        "ved_mall@with_clicks",
        "ved_mall@with_clicks stages.clicked.experiment.task.views=0",
    ),
    "ved_debias": Ablation(
        "the debiasing network gives to the little shown",
        "uniform/tail/auc",
        "ved_mall@debiased",
        "ved_mall@with_clicks",
    ),
    "in_out": Ablation(
        "what goes with a product is near in the other space, not in its own",
        "test/recall@10",
        "in_out_mall",
        "in_out_mall model.space=in-in",
    ),
    "in_out_tables": Ablation(
        "two embeddings of a product beat one", "test/recall@10", "in_out_mall", "in_out_mall model.space=one"
    ),
    "moon_core": Ablation(
        "the core beside the whole picture finds the product before another wall",
        "image/recall@10",
        "moon_mall",
        "moon_mall model.core=False",
    ),
    "moon_guided": Ablation(
        "experts of their own for categories and attributes name the category of a page that does not",
        "class/leaf/accuracy@1",
        "moon_mall",
        "moon_mall model.experts.guided=False",
    ),
    "moon_negatives": Ablation(
        "negatives of past batches and of the same leaf",
        "image/recall@1",
        "moon_mall",
        "moon_mall model.bank=0 source.hard=False",
    ),
    "moon_pool": Ablation(
        "the mean of all tokens finds what a picture shows no worse than the last",
        "image/recall@10",
        "moon_mall model.pool=mean",
        "moon_mall",
    ),
    "moon_pool_words": Ablation("and what words ask for", "words/recall@10", "moon_mall model.pool=mean", "moon_mall"),
    "mim_csft": Ablation(
        "searches by photo align pictures with what is clicked for them",
        "clicked/recall@100",
        "mim_mall@csft",
        "mim_mall@pretraining",
    ),
    "mim_negatives": Ablation(
        "negatives of past batches and of the same leaf",
        "clicked_fused/recall@100",
        "mim_mall@csft",
        "mim_mall@csft stages.csft.experiment.model.bank=0 stages.csft.experiment.source.hard=False",
    ),
    "mim_vectors": Ablation(
        "vectors aligned with clicks serve the click tower better than those of listings alone",
        "test/auc",
        "mim_mall@mim",
        "mim_mall@mim_of_stage_1",
    ),
    "mim_cold": Ablation("content interest ranks what arrived later", "test/cold/auc", "mim_mall@mim", "mim_mall@ids"),
    "composed_words": Ablation(
        "words say how the picture is to change",
        "test/recall@10",
        "composed_mall",
        "composed_mall model.fusion=image",
    ),
    "composed_picture": Ablation(
        "the picture says what the words leave open",
        "test/recall@10",
        "composed_mall",
        "composed_mall model.fusion=text",
    ),
    "composed_gate": Ablation(
        "a gate on the picture beats the sum of both",
        "test/recall@10",
        "composed_mall",
        "composed_mall model.fusion=sum",
    ),
    "composed_inversion": Ablation(
        "made-up words, for which no change was ever shown, find what neither half of a taught query does",
        "test/recall@10",
        "composed_inversion_mall@inversion",
        "composed_mall model.fusion=text",
    ),
    "composed_inversion_sum": Ablation(
        "and what a taught sum of both does",
        "test/recall@10",
        "composed_inversion_mall@inversion",
        "composed_mall model.fusion=sum",
    ),
    "interbert_matching": Ablation(
        "a model that was never asked whether both match cannot rank by it",
        "test/recall@10",
        "interbert_mall",
        "interbert_mall task.itm=0",
    ),
    "interbert_hard": Ablation(
        "mismatched titles that are alike teach more than any titles",
        "test/mrr",
        "interbert_mall",
        "interbert_mall loader.transforms.0.hard=1",
    ),
    "interbert_streams": Ablation(
        "layers for each side alone read a title without its picture better",
        "words/leaf/accuracy@1",
        "interbert_mall",
        "interbert_mall model.streams=False",
    ),
    "interbert_spans": Ablation(
        "hidden spans teach matching more than hidden words",
        "test/mrr",
        "interbert_mall",
        "interbert_mall model.span=1",
    ),
    "interbert_groups": Ablation(
        "regions that overlap a hidden one are hidden with it",
        "test/mrr",
        "interbert_mall",
        "interbert_mall model.overlap=1.0",
    ),
    "short_video": Ablation(
        "weights of another shop, tuned on the catalogue, find the video of a product",
        "space/item-video/recall@1",
        "short_video_mall@tuned",
        "short_video_mall@as_it_came",
    ),
    "short_video_recency": Ablation(
        "what people looked at lately says more of what they look at next",
        "people/recall@20",
        "short_video_mall@tuned",
        "short_video_mall@tuned ...half_life=None",
    ),
    "video_log": Ablation(
        "in the log that it learnt from, a model of who finishes what beats content",
        "replay/logged/auc",
        "short_video_mall@supervised",
        "short_video_mall@tuned",
    ),
    "video_bias": Ablation(
        "without place and length in the way, people get more out of what content ranks first",
        "replay/deep_view",
        "short_video_mall@tuned",
        "short_video_mall@supervised",
    ),
    "video_bias_new": Ablation(
        "the more so among videos that no log has shown",
        "replay/new/deep_view",
        "short_video_mall@tuned",
        "short_video_mall@supervised",
    ),
    "completion": Ablation(
        "neighbours complete a title better than the catalogue's commonest words",
        "title/f1",
        "completion_mall@retrieval",
        "completion_mall@mean",
    ),
    "completion_gain": Ablation(
        "and a recommender gains from it over leaving the gap",
        "recall@20",
        "completion_mall@retrieval",
        "completion_mall@zero",
    ),
    "completion_captioner": Ablation(
        "a captioner tells what a listing is as well as its neighbours do",
        "title/f1",
        "completion_mall@generated",
        "completion_mall@retrieval",
        within=0.01,
    ),
    "completion_vectors": Ablation(
        "and the vectors that generators give are nearer the hidden ones",
        "image/cosine",
        "completion_mall@generated",
        "completion_mall@retrieval",
    ),
    "ssl_tail": Ablation(
        "masked views of the whole corpus help products that few clicked",
        "test/tail/recall@50",
        "ssl_two_tower_mall",
        "ssl_two_tower_mall task.alpha=0",
    ),
    "ssl_correlated": Ablation(
        "fields that say the same are masked together",
        "test/tail/recall@50",
        "ssl_two_tower_mall",
        "ssl_two_tower_mall loader.transforms.0.masking=random",
    ),
    "ssl_uniform": Ablation(
        "items of the views are drawn from the corpus and not from the log",
        "test/tail/recall@50",
        "ssl_two_tower_mall",
        "ssl_two_tower_mall loader.transforms.0.drawn=log",
    ),
    "ssl_masks": Ablation(
        "views that lack something teach more than that items spread out",
        "test/tail/recall@50",
        "ssl_two_tower_mall",
        "ssl_two_tower_mall loader.transforms.0.masking=none",
    ),
    "knn_embed_mixture": Ablation(
        "a mixture of interests finds more than one vector",
        "smoothed/recall@50",
        "knn_embed_mall evals.smoothed.way.smoothing=0",
        "knn_embed_mall evals.smoothed.way=train.retrieve_lists:Nearest",
    ),
    "knn_embed_smoothing": Ablation(
        "what like-minded people take adds to a person's own mixture",
        "smoothed/recall@50",
        "knn_embed_mall",
        "knn_embed_mall evals.smoothed.way.smoothing=0",
    ),
    "knn_embed_interests": Ablation(
        "a mixture meets more of the interests that people go on to show",
        "smoothed/interest_coverage@50",
        "knn_embed_mall",
        "knn_embed_mall evals.smoothed.way=train.retrieve_lists:Nearest",
    ),
    "expanded_history": Ablation(
        "what people watched elsewhere, as the shop's products nearest to it, helps to find what they click next",
        "test/recall@100",
        "expanded_history_mall@expanded",
        "expanded_history_mall@here",
    ),
    "ada_retrieval": Ablation(
        "five rounds that adapt find more than one",
        "test/hit_rate@100",
        "ada_retrieval_mall@adapted",
        "ada_retrieval_mall@single",
    ),
    "ada_retrieval_items": Ablation(
        "a history that looks at what was found adds to a user that does",
        "test/hit_rate@100",
        "ada_retrieval_mall@adapted",
        "ada_retrieval_mall@adapted ...experiment.model.adapters=users",
    ),
    "ada_retrieval_stages": Ablation(
        "adapters are taught to a backbone that is trained already",
        "test/hit_rate@100",
        "ada_retrieval_mall@adapted",
        "ada_retrieval_mall@at_once",
    ),
    "bert4rec_last": Ablation(
        "rows in which the newest item alone is hidden teach what is asked to predict",
        "test/ndcg@20",
        "bert4rec_mall",
        "bert4rec_mall loader.transforms.0.last=0",
    ),
    "bert4rec_head": Ablation(
        "a projection and a bias of each item before the softmax",
        "test/ndcg@20",
        "bert4rec_mall",
        "bert4rec_mall model.projection=False",
    ),
    "mqsa_long": Ablation(
        "a query of the newest three beside that of the newest one",
        "test/hit_rate@20",
        "mqsa_ted_mall",
        "mqsa_ted_mall model.alpha=1",
    ),
    "mqsa_short": Ablation(
        "and one of the newest beside that of three",
        "test/hit_rate@20",
        "mqsa_ted_mall",
        "mqsa_ted_mall model.alpha=0",
    ),
    "ted": Ablation(
        "transitions distilled into the items' vectors",
        "test/ndcg@20",
        "mqsa_ted_mall",
        "mqsa_ted_mall task.distil=0",
    ),
    "icsrec": Ablation(
        "intents that histories share add to the same rows without",
        "test/ndcg@20",
        "icsrec_mall",
        "icsrec_mall task.coarse=0 task.fine=0",
    ),
    "icsrec_coarse": Ablation(
        "histories before the same item share an intent",
        "test/ndcg@20",
        "icsrec_mall task.fine=0",
        "icsrec_mall task.coarse=0 task.fine=0",
    ),
    "icsrec_fine": Ablation(
        "clusters of histories add to that",
        "test/ndcg@20",
        "icsrec_mall",
        "icsrec_mall task.fine=0",
    ),
    "icsrec_mask": Ablation(
        "rows of the same target or cluster are no negatives",
        "test/ndcg@20",
        "icsrec_mall",
        "icsrec_mall task.mask_false=False",
    ),
    "s3rec": Ablation(
        "an encoder that learnt what belongs together learns what comes next better",
        "test/ndcg@20",
        "s3rec_mall@tuned",
        "s3rec_mall@scratch",
    ),
    "s3rec_attributes": Ablation(
        "most of it is from attributes",
        "test/ndcg@20",
        "s3rec_mall@tuned",
        "s3rec_mall@tuned stages.pretraining.experiment.task.aap=0 stages.pretraining.experiment.task.map=0",
    ),
    "idnp_latent": Ablation(
        "a Gaussian of the context adds to attention to it",
        "test/ndcg@20",
        "idnp_mall",
        "idnp_mall model.paths=deterministic",
    ),
    "idnp_deterministic": Ablation(
        "attention to the context adds to a Gaussian of it",
        "test/ndcg@20",
        "idnp_mall",
        "idnp_mall model.paths=latent",
    ),
    "idnp_scales": Ablation(
        "windows read by one, two and three items at a time",
        "test/ndcg@20",
        "idnp_mall",
        "idnp_mall model.scales=1",
    ),
    "learn_dense": Ablation(
        "states that foretell all later actions find more of what is taken later than those that foretell the next",
        "horizon/recall@50",
        "learn_mall",
        "learn_mall ...window=1 ...targets=1 ...positions=1 ...newest=True",
    ),
    "learn_text": Ablation(
        "texts find what arrived later, where ids know nothing",
        "cold/recall@50",
        "learn_mall",
        "learn_mall model.reads=ids",
    ),
    "learn_alignment": Ablation(
        "items mapped by the tower of people beat the texts' vectors as they came",
        "horizon/recall@50",
        "learn_mall",
        "learn_mall model.item=raw",
    ),
    "learn_guests": Ablation(
        "LEARN's vectors rank for people whom training never saw",
        "test/guests/auc",
        "learn_buys_mall@adapted",
        "learn_buys_mall@ids",
    ),
    "learn_cold": Ablation("and what arrived later", "test/cold/auc", "learn_buys_mall@adapted", "learn_buys_mall@ids"),
    "learn_adapted": Ablation(
        "a tower with a loss of its own brings more of the vectors to the ranker than fields do",
        "test/auc",
        "learn_buys_mall@adapted",
        "learn_buys_mall@vectors",
    ),
    "user360_guests": Ablation(
        "what people do elsewhere tells a shop that does not know them what they click",
        "test/guests/auc",
        "user360_buys_mall@vectors",
        "user360_buys_mall@ids",
    ),
    "user360_cleaning": Ablation(
        "a cleaned dictionary leaves more to be told of a person's interests",
        "interests/recall@5",
        "user360_mall",
        "user360_mall source.cleaning=None evals.next.source.cleaning=None evals.interests.source.cleaning=None",
    ),
    "user360_times": Ablation(
        "when a behaviour was says what comes next",
        "next/hit_rate@10",
        "user360_mall",
        "user360_mall model.times=False",
    ),
    "user360_interests": Ablation(
        "classes of interest learned beside it cost the next event nothing",
        "next/hit_rate@10",
        "user360_mall",
        "user360_mall task.interests=0",
        within=0.01,
    ),
    "user360_align": Ablation(
        "tags of a language model help with people of few events",
        "interests/few/recall@5",
        "user360_mall",
        "user360_mall task.align=0",
    ),
    "alpharec_text": Ablation(
        "it is the items' own texts that recommend",
        "later/recall@20",
        "alpharec_mall",
        "alpharec_mall init_from.shuffled=True",
    ),
    "alpharec_mlp": Ablation(
        "an MLP adds to one matrix", "later/recall@20", "alpharec_mall", "alpharec_mall model.hidden="
    ),
    "alpharec_graph": Ablation(
        "and a graph to the MLP", "later/recall@20", "alpharec_mall", "alpharec_mall model.layers=0"
    ),
    "kar": Ablation("knowledge of items and people adds to DIN", "valid/auc", "kar_mall", "kar_mall model.reads="),
    "kar_cold": Ablation(
        "above all of items that arrived later", "valid/cold/auc", "kar_mall", "kar_mall model.reads="
    ),
    "kar_experts": Ablation(
        "shared and own experts adapt it better than one MLP",
        "valid/auc",
        "kar_mall",
        "kar_mall model.adaptor.kind=single",
    ),
    "notellm_contrast": Ablation(
        "notes taken together teach a note's vector more than its hashtags do",
        "test/recall@10",
        "notellm_mall",
        "notellm_mall task.contrast=0 task.telling=1",
    ),
    "notellm_tags": Ablation(
        "hashtags must be taught to be told", "tags/told", "notellm_mall", "notellm_mall task.telling=0"
    ),
}
