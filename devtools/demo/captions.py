"""The captions of the demo's images, keyed by the names that the workflows give to the images."""

from __future__ import annotations

CAPTIONS = {
    "01_picture": "The image that was sampled while the features were recorded: 128 x 128 pixels, 20 steps.",
    "01_features_middle": "Where features of the middle block fire, step by step. Each row is one feature, "
    "each column one of the denoising steps, from noise on the left to the image on the right. Bright means "
    "that the feature is active there.",
    "01_features_up2": "The same for up block 2, a later layer. Where a feature has a label, such as flat "
    "cartoon, it fires more often with that concept than without it.",
    "02_down_without": "Glasses in the prompt, four seeds, without steering.",
    "02_down_steered": "The same prompt and seeds, with the features of glasses turned down in two layers.",
    "02_up_without": "No glasses in the prompt, four seeds, without steering.",
    "02_up_steered": "The same prompt and seeds, with the features of glasses turned up in one layer.",
    "03_down_without": "Glasses in the prompt, four seeds, without steering.",
    "03_down_steered": "The same words and seeds, with glasses removed from the encoded prompt.",
    "03_up_without": "No glasses in the prompt, four seeds, without steering.",
    "03_up_steered": "The same words and seeds, with glasses added to the encoded prompt.",
    "04_training": "The training of an SAE on this machine: its error and the share of dead features by "
    "step.",
    "04_without": "Four seeds without steering.",
    "04_steered": "The same seeds, with glasses turned down by the SAE that was just trained.",
    "explorer": "The Explorer in ComfyUI after a click on the glasses. The heat shows where the concept is "
    "active at the chosen step, the small maps on the right show it at every step.",
    "explorer_steered": "Steer was pressed and the strength set to -2.5. The workflow then ran again. "
    "The Explorer still shows the recorded run; the steered image is below, with the same seed.",
    "05_without": "The image that was recorded for the Explorer.",
    "05_steered": "The same seed, steered as chosen in the Explorer.",
    "06_picture": "The image whose words are mapped below.",
    "06_words": "Where the model attended to each word of the prompt while it sampled the image.",
    "06_words_by_step": "The maps of three words, by denoising step.",
    "06_words_by_layer": "The maps of three words, by layer.",
    "06_mask": "The maps of the three words as masks, for nodes that take masks.",
    "07_picture": "The image whose features are followed over time.",
    "07_timeline": "How strong features are at each step, from noise on the left to the image on the right.",
    "07_animation": "Where features are active, step by step, as a video.",
    "07_overlay": "One image for each feature: its mean over all steps, as heat over the image.",
    "08_first": "The prompt without glasses.",
    "08_second": "The same seed and the same prompt, with glasses.",
    "08_difference": "What changed inside the model. Orange: a feature is more active with the second "
    "prompt. Blue: less.",
    "08_timeline": "The features of glasses at each step: solid for the first prompt, dashed for the second. "
    "Where the lines part, the word begins to matter.",
    "09_with": "Four images with glasses.",
    "09_without": "The same seeds, without glasses.",
    "09_where": "How clearly one feature separates images with and without glasses, by layer and step. The "
    "frame marks the best.",
    "09_found": "Where the best features are active in the first image: is it on the glasses?",
    "09_plain": "Without steering.",
    "09_middle": "The same seeds, with the features found in the middle block turned down.",
    "09_steered": "The same seeds, with the features found in up blocks 2 and 4 turned down.",
    "10_down": "Glasses removed, with one seed: the strongest steering on the left, none on the right.",
    "10_up": "Glasses added, with one seed: no steering on the left, the strongest on the right.",
    "11_picture": "A finished image that was shown to the model.",
    "11_features": "Which features fire in the image, by the amount of noise added: much on the left, little "
    "on the right.",
    "14_as_asked": "The prompt without glasses, without steering.",
    "14_painted": "The same seed, with glasses added only inside the painted region: a monocle.",
    "14_mask": "The painted region.",
    "15_without": "Five prompts that ask for glasses in other words, without steering.",
    "15_text": "Glasses removed from the encoded prompts alone.",
    "15_model": "Glasses removed inside the model alone.",
    "15_both": "Glasses removed from the encoded prompts and inside the model.",
    "16_first": "The first model.",
    "16_second": "A second model, which attends less to the words, with the same prompt and seed.",
    "16_difference": "What the second model does differently. Orange: a feature is more active there. Blue: "
    "less.",
    "16_timeline": "The features of glasses at each step: solid for the first model, dashed for the second.",
}
